"""A graph in float16 as GPUs compute it fastest: fewer passes over memory between its products.

On a GPU half of a transformer's time is not its products of matrices, but what lies between them and
does no more than read numbers and write them again. So

- biases of query, key and value are not added to all three before they are attended with. A key's adds the
  same to all scores of a query, which softmax does not see; a value's adds itself to what comes out, since weights
  of attention come to one, and so can be part of the bias behind the next product. A query's is left;
- a residual sum is made by what normalises it, `SkipLayerNormalization`, which onnxruntime does by itself only
  where nothing else reads the sum;
- embeddings of words, places and types are gathered, added and normalised by one kernel;
- patches of pictures are a product of their pixels; cuDNN has no fast convolution of three channels.

Only what is in float16 is changed: what stays in float32 has its reasons.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from tfbatch_export.attention import PROJECTIONS, is_plain_attention, take_apart, taken_apart
from tfbatch_export.fuse import count_operators
from tfbatch_export.values import add_constant, is_weights

MICROSOFT, PLACES = "com.microsoft", "places"
BIAS = 3  # the input of MultiHeadAttention that takes it, (3 x hidden)
RESIDUAL = 3  # the output of SkipLayerNormalization that is the sum itself
TO_TOKENS = (0, 2, 1)  # (B, C, patches) to patches first
TO_PATCHES = (0, 2, 4, 1, 3, 5)  # (B, C, rows, height, columns, width) to patches of all channels


def suit_gpus(model: ir.Model) -> dict[str, int]:
    """Change a graph as above; it is not in order after that.

    Returns:
        How many operators there must be of those that become more or fewer.
    """
    graph, before, joined = model.graph, count_operators(model), Counter[str]()
    apart = [node for node in graph if is_plain_attention(node) and is_half(node.inputs[1])]
    for node in apart:
        take_apart(graph, node)
    for node in list(graph):
        if node.op_type == "MultiHeadAttention":
            move_biases(graph, node)
        elif node.op_type == "Conv":
            multiply_patches(graph, node)
        elif node.op_type == "LayerNormalization" and all(map(is_half, node.inputs[1:])):
            new = join_embeddings(graph, node) or join_residual(graph, node)
            joined.update([new.op_type] if new else [])
    norms = {"LayerNormalization": before["LayerNormalization"] - joined.total()} | joined if joined else {}
    return taken_apart(before, len(apart)) | norms


class Biased(NamedTuple):
    """A product with a matrix of weights, the addition of its bias, and which input of that is the bias."""

    product: ir.Node
    addition: ir.Node
    place: int

    @property
    def bias(self) -> ir.Value:
        value = self.addition.inputs[self.place]
        assert value is not None
        return value


def is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT16


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value; None where others do too, or the graph gives it out."""
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def numbers(value: ir.Value) -> npt.NDArray[np.float32]:
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float32)


def biased(addition: ir.Node | None) -> Biased | None:
    """An addition of a bias to a product that nothing else reads, in float16; None where it is none."""
    if addition is None or addition.op_type != "Add":
        return None
    for place, value in enumerate(addition.inputs):
        other = addition.inputs[1 - place]
        product = None if other is None else other.producer()
        if not (is_weights(value) and is_half(value)) or product is None or product.op_type != "MatMul":
            continue
        if width_of(value) and is_weights(product.inputs[1]) and only_user(product.outputs[0]) is addition:
            return Biased(product, addition, place)
    return None


def width_of(value: ir.Value | None) -> int | None:
    """How many numbers weights of one dimension are; None of others."""
    shape = None if value is None or value.shape is None else value.shape
    return int(shape[0]) if shape is not None and len(shape) == 1 and isinstance(shape[0], int) else None


def rows_alike(*values: ir.Value | None) -> bool:
    """Whether values are known to be of one shape (B, L, H)."""
    shapes = [None if value is None or value.shape is None else tuple(map(str, value.shape)) for value in values]
    return shapes[0] is not None and len(shapes[0]) == 3 and len(set(shapes)) == 1


def move_biases(graph: ir.Graph, attention: ir.Node) -> None:
    """Leave an attention no bias: the key's changes nothing, the value's goes behind the next product, the query's
    is added to it alone."""
    bias = attention.inputs[BIAS] if len(attention.inputs) > BIAS else None
    query = attention.inputs[0]
    behind = only_user(attention.outputs[0])
    following = biased(only_user(behind.outputs[0])) if behind is not None else None
    if query is None or bias is None or not (is_weights(bias) and is_half(bias)):
        return
    if following is None or following.product is not behind or behind.inputs[0] is not attention.outputs[0]:
        return
    weights = behind.inputs[1]
    width = weights.shape.numpy()[0] if weights is not None and weights.shape is not None else 0
    if weights is None or None in attention.inputs[1:BIAS] or len(attention.outputs) > 1:
        return
    if width_of(bias) != len(PROJECTIONS) * width:
        return
    of_query, _, of_value = np.split(numbers(bias), len(PROJECTIONS))
    moved = (numbers(following.bias) + of_value @ numbers(weights)).astype(np.float16)
    if not np.isfinite(moved).all():
        return
    name = bias.name or "bias"
    following.addition.replace_input_with(following.place, add_constant(graph, f"{name}_value", moved))
    constant = add_constant(graph, f"{name}_query", of_query.astype(np.float16))
    addition = ir.node("Add", [query, constant])
    addition.outputs[0].type, addition.outputs[0].shape = query.type, query.shape
    graph.insert_before(attention, addition)
    attention.replace_input_with(0, addition.outputs[0])
    attention.replace_input_with(BIAS, None)


def join_residual(graph: ir.Graph, normalisation: ir.Node) -> ir.Node | None:
    """Let one operator add a product's bias, what the layer began with, and normalise; None where that is not what
    is normalised."""
    hidden = normalisation.inputs[0]
    total = None if hidden is None else hidden.producer()
    if total is None or total.op_type != "Add" or normalisation.attributes.get_int("axis", -1) != -1:
        return None
    for value, rest in (total.inputs, total.inputs[::-1]):
        inner = None if value is None or is_weights(rest) else biased(value.producer())
        if inner is None or only_user(inner.addition.outputs[0]) is not total:
            continue
        scale, shift = [*normalisation.inputs[1:], None][:2]
        if not rows_alike(rest, inner.product.outputs[0]) or width_of(inner.bias) != width_of(scale):
            continue
        is_read = only_user(total.outputs[0]) is not normalisation
        node = ir.node(
            "SkipLayerNormalization",
            [inner.product.outputs[0], rest, scale, shift, inner.bias],
            {"epsilon": normalisation.attributes.get_float("epsilon", 1e-5)},
            domain=MICROSOFT,
            num_outputs=RESIDUAL + 1 if is_read else 1,
        )
        for between in node.outputs[1:RESIDUAL]:
            between.name = ""  # the mean and the deviation, which are not made
        graph.insert_after(total, node)
        put_in_place(normalisation.outputs[0], node.outputs[0])
        if is_read:
            put_in_place(total.outputs[0], node.outputs[RESIDUAL])
        return node
    return None


def join_embeddings(graph: ir.Graph, normalisation: ir.Node) -> ir.Node | None:
    """Let one operator gather the embeddings of words, types and places and normalise their sum; None where these
    are not what is normalised."""
    if len(normalisation.inputs) != 3 or normalisation.attributes.get_int("axis", -1) != -1:
        return None
    parts = list(summands(normalisation.inputs[0]))
    found = {}
    for gather in parts:
        table, indices = gather.inputs if gather is not None and gather.op_type == "Gather" else (None, None)
        if gather is None or indices is None or not (is_weights(table) and is_half(table)):
            return None
        if gather.attributes.get_int("axis", 0):
            return None
        name = indices.name if indices.is_graph_input() else PLACES if counts_up(indices) else None
        found[name] = table, indices
    if len(parts) != len(found) or set(found) != {"input_ids", "token_type_ids", PLACES}:
        return None
    (words, ids), (types, kinds), (places, _) = (found[name] for name in ("input_ids", "token_type_ids", PLACES))
    casts = [ir.node("Cast", [value], {"to": ir.DataType.INT32}) for value in (ids, kinds)]
    node = ir.node(
        "EmbedLayerNormalization",
        [*(cast.outputs[0] for cast in casts), words, places, types, *normalisation.inputs[1:]],
        {"epsilon": normalisation.attributes.get_float("epsilon", 1e-5)},
        domain=MICROSOFT,
        num_outputs=2,
    )
    graph.insert_before(normalisation, [*casts, node])
    put_in_place(normalisation.outputs[0], node.outputs[0])
    return node


def summands(value: ir.Value | None) -> Iterator[ir.Node | None]:
    """The nodes that make what is added up to a value; None for what no node makes."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != "Add" or only_user(value) is None:
        yield node
        return
    for part in node.inputs:
        yield from summands(part)


def counts_up(indices: ir.Value) -> bool:
    """Whether indices (1, L) are 0, 1, 2, ... as long as the input is: the start of a constant that is."""
    node = indices.producer()
    if node is None or node.op_type != "Slice":
        return False
    table, start = node.inputs[:2]
    if table is None or start is None or table.const_value is None or start.const_value is None:
        return False
    values, stop, steps = table.const_value.numpy(), node.inputs[2], [*node.inputs, None, None][4]
    if stop is None or stop.const_value is not None or (steps is not None and not is_one(steps)):
        return False  # not as long as the input is
    return not start.const_value.numpy().any() and np.array_equal(values, np.arange(values.size)[None])


def is_one(value: ir.Value) -> bool:
    return value.const_value is not None and bool((value.const_value.numpy() == 1).all())


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


def put_in_place(old: ir.Value, new: ir.Value) -> None:
    """Have what read a value read another one, which is the same."""
    new.type, new.shape = old.type, old.shape
    if old.is_graph_output():
        old.name, new.name = None, old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
