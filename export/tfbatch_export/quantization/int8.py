"""A fused graph to one of 8-bit products, for processors.

A product with a matrix of weights is computed in one of two ways, see `rounding`. Static, as `QuantizeLinear`,
`DequantizeLinear` and `MatMul`, which onnxruntime and OpenVINO multiply in 8 bits: activations have a step for each
channel, found on real rows. Or in blocks, as `MatMulNBits`: scales are found as activations come, which takes up to
twice as long, but no token that is unlike all others costs these their precision. It is static where that is nearly
as exact as blocks, on rows that no step was found on; without real rows all is in blocks.

So that query, key and value are such products too, `Attention` is taken apart where it has no order and no bias of
places.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from tfbatch.errors import ExportNotVerified

from tfbatch_export.families import Tensors
from tfbatch_export.precision import find_attentions, take_all_apart
from tfbatch_export.quantization.calibration import Numbers, Seen, calibrate
from tfbatch_export.quantization.rounding import BLOCK, Static, product_in_blocks, round_static
from tfbatch_export.rewrites.values import add_constant, is_weights, numbers, only_user, put_in_place, width_of

INT8_ACTIVATIONS = 4  # `accuracy_level` of MatMulNBits: 8-bit activations, 32-bit sums
NEARLY = 1.3  # times the error of blocks
OUTLIERS = (0, 8)  # channels that may be computed apart, the fewest that will do
APART = "_apart"  # how the names of the products of these end
BIASED = {"Add", "BiasGelu"}  # what adds a bias to a product
MATRIX = 2  # dimensions


def write_int8(source: Path, target: Path, real: Mapping[str, Tensors]) -> dict[str, int]:
    """Make the 8-bit graph of a fused one, by batches of real rows.

    Returns:
        How many operators there must be of those that become more or fewer.

    Raises:
        ExportNotVerified: there is no product to compute so.
    """
    model = ir.load(source)
    changed = take_all_apart(model, find_attentions(model))
    readers = products_by_input(model.graph)
    if not readers:
        raise ExportNotVerified("int8: the graph has no product with a matrix of weights")
    watched = [value for value, products in readers.items() if may_be_static(products)]
    statics = {
        value: static
        for value, seen in calibrate(model, watched, real)
        if (static := near_enough(readers[value], seen)) is not None
    }
    for value, static in statics.items():
        make_static(model.graph, value, readers[value], static)
    in_blocks = sum(len(products) for value, products in readers.items() if value not in statics)
    RemoveUnusedNodesPass()(model)  # the weights as they were
    onnx.save(put_in_blocks(ir.to_proto(model)), target)
    return changed | {"MatMulNBits": in_blocks, "QuantizeLinear": len(statics)}


def products_by_input(graph: ir.Graph) -> dict[ir.Value, list[ir.Node]]:
    """The products with matrices of weights, by what they read."""
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        if node.op_type == "MatMul" and is_weights(node.inputs[1]) and node.inputs[0] is not None:
            readers.setdefault(node.inputs[0], []).append(node)
    return readers


def weights_of(product: ir.Node) -> ir.Value:
    weights = product.inputs[1]
    assert weights is not None
    return weights


def may_be_static(products: Sequence[ir.Node]) -> bool:
    """Whether the weights are these products' own: layers that share theirs would need them again for each."""
    weights = [weights_of(product) for product in products]
    return all(only_user(value) and value.shape is not None and len(value.shape) == MATRIX for value in weights)


def near_enough(products: Sequence[ir.Node], seen: Seen) -> Static | None:
    """The weights of products that read the same, side by side and rounded for it; None where blocks are far nearer."""
    weights = np.concatenate([numbers(weights_of(product)) for product in products], axis=1)
    states = seen.held_out
    exact = states @ weights
    allowed = NEARLY * np.linalg.norm(product_in_blocks(states, weights) - exact)
    for outliers in OUTLIERS:
        static = round_static(weights, seen, outliers)
        if np.linalg.norm(static.product(states) - exact) <= allowed:
            return static
    return None


def make_static(graph: ir.Graph, value: ir.Value, products: Sequence[ir.Node], static: Static) -> None:
    """Have products that read the same read its levels, and weights that are levels too."""
    levels, outliers = read_levels(graph, products[0], value, static)
    widths = [numbers(weights_of(product)).shape[1] for product in products]
    for product, part in zip(products, static.parts(widths), strict=True):
        name = weights_of(product).name or "weights"
        rounded = add_constant(graph, f"{name}_levels", part.weights)
        weights = ir.node(
            "DequantizeLinear", [rounded, add_constant(graph, f"{name}_scales", part.scales)], {"axis": 1}
        )
        graph.insert_before(product, [weights])
        product.replace_input_with(0, levels)
        product.replace_input_with(1, weights.outputs[0])
        whole = product
        if outliers is not None:
            exact = add_constant(graph, f"{name}{APART}", part.exact)
            of_outliers = ir.node("MatMul", [outliers, exact], name=f"{name}{APART}")
            graph.insert_before(product, [of_outliers])
            whole = add_behind(graph, product, of_outliers.outputs[0])
        correct(graph, whole, part.correction)


def read_levels(graph: ir.Graph, first: ir.Node, value: ir.Value, static: Static) -> tuple[ir.Value, ir.Value | None]:
    """What products read in place of a value, from the first one on: its levels, and the channels that stay."""
    name = value.name or "value"
    one = add_constant(graph, "one_level", np.array(1, np.float32))
    none = add_constant(graph, "no_level", np.array(0, np.uint8))
    scaled = ir.node("Mul", [value, add_constant(graph, f"{name}_steps", 1 / static.steps)])
    shifted = ir.node("Add", [scaled.outputs[0], add_constant(graph, f"{name}_zeros", static.zeros)])
    rounded = ir.node("QuantizeLinear", [shifted.outputs[0], one, none])
    levels = ir.node("DequantizeLinear", [rounded.outputs[0], one, none])
    graph.insert_before(first, [scaled, shifted, rounded, levels])
    if not len(static.outliers):
        return levels.outputs[0], None
    outliers = ir.node("Gather", [value, add_constant(graph, f"{name}_outliers", static.outliers)], {"axis": -1})
    graph.insert_before(first, [outliers])
    return levels.outputs[0], outliers.outputs[0]


def correct(graph: ir.Graph, product: ir.Node, correction: Numbers) -> None:
    """Add to a product what its rounding takes from it: in its bias, where it has one behind it."""
    made = product.outputs[0]
    user = only_user(made)
    for place, bias in enumerate(user.inputs if user and user.op_type in BIASED else ()):
        if user and bias and is_weights(bias) and width_of(bias) == len(correction):
            user.replace_input_with(place, add_constant(graph, f"{bias.name}_corrected", numbers(bias) + correction))
            return
    add_behind(graph, product, add_constant(graph, f"{made.name}_correction", correction))


def add_behind(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Node:
    """Have those that read a node read the sum of it and a value."""
    made = node.outputs[0]
    addition = ir.node("Add", [made, value])
    put_in_place(made, addition.outputs[0])
    if made.name is None:  # the sum is an output of the graph now, of that name
        made.name = f"{addition.outputs[0].name}_before"
    addition.replace_input_with(0, made)
    graph.insert_after(node, [addition])
    return addition


def put_in_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Have the products whose weights are as they were read them in blocks."""
    logging.basicConfig(level=logging.WARNING)  # else the next line has every package log to standard error
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        model,
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ACTIVATIONS,
        nodes_to_exclude=[node.name for node in model.graph.node if node.name.endswith(APART)],
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made
