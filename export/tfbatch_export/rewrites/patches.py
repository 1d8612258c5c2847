"""Patches of pictures as products, for GPUs: cuDNN has no fast convolution of three channels."""

import numpy as np
import onnx_ir as ir

from tfbatch_export.rewrites.values import add_constant, is_half, is_weights, numbers, only_user, put_in_place

TO_TOKENS = (0, 2, 1)  # (B, C, patches) to patches first
TO_PATCHES = (0, 2, 4, 1, 3, 5)  # (B, C, rows, height, columns, width) to patches of all channels


def multiply_patches(graph: ir.Graph, convolution: ir.Node) -> None:
    """Make a convolution of patches that lie side by side, whose outputs become tokens, a product of pixels."""
    pixels, weights, *biases = convolution.inputs
    reshape = only_user(convolution.outputs[0])
    transpose = only_user(reshape.outputs[0]) if reshape is not None and reshape.op_type == "Reshape" else None
    turned = transpose.attributes.get_ints("perm", ()) if transpose and transpose.op_type == "Transpose" else ()
    if transpose is None or tuple(turned) != TO_TOKENS:
        return
    if pixels is None or weights is None or not (is_weights(weights) and is_half(weights)):
        return
    kernel, size = numbers(weights), size_of(pixels)
    target = reshape.inputs[1] if reshape is not None else None
    if target is None or target.const_value is None or target.const_value.numpy()[1:2].tolist() != [len(kernel)]:
        return
    _, channels, *patch = kernel.shape
    if size is None or not lie_side_by_side(convolution, patch) or any(np.remainder(size, patch)):
        return
    (rows, columns), (height, width) = np.floor_divide(size, patch).tolist(), patch
    width_of_patch = channels * height * width
    shapes = [-1, channels, rows, height, columns, width], [-1, rows * columns, width_of_patch]
    matrix = np.ascontiguousarray(kernel.reshape(-1, width_of_patch).T.astype(np.float16))
    name = weights.name or "patches"
    places = [add_constant(graph, f"{name}_{len(shape)}", np.array(shape)) for shape in shapes]
    apart = ir.node("Reshape", [pixels, places[0]])
    sorted_ = ir.node("Transpose", [apart.outputs[0]], {"perm": TO_PATCHES})
    flat = ir.node("Reshape", [sorted_.outputs[0], places[1]])
    product = ir.node("MatMul", [flat.outputs[0], add_constant(graph, f"{name}_matrix", matrix)])
    sums = [ir.node("Add", [product.outputs[0], bias]) for bias in biases]
    nodes = [apart, sorted_, flat, product, *sums]
    graph.insert_before(convolution, nodes)
    put_in_place(transpose.outputs[0], nodes[-1].outputs[0])


def lie_side_by_side(convolution: ir.Node, patch: list[int]) -> bool:
    """Whether a convolution takes each pixel once."""
    plain = {"group": 1, "auto_pad": "NOTSET", "dilations": [1, 1], "pads": [0] * 4, "strides": patch}
    given = {name: attribute.value for name, attribute in convolution.attributes.items() if name in plain}
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return len(patch) == 2 and plain | found == plain and "strides" in found


def size_of(pixels: ir.Value) -> tuple[int, int] | None:
    """Height and width of pictures (B, C, H, W), where the graph is for one size alone."""
    maker = pixels.producer()
    if pixels.shape is None and maker is not None and maker.op_type == "Cast" and maker.inputs[0] is not None:
        pixels = maker.inputs[0]
    _, _, *sides = pixels.shape or (None, None)
    known = [side for side in sides if isinstance(side, int)]
    return (known[0], known[1]) if len(known) == len(sides) == 2 else None
