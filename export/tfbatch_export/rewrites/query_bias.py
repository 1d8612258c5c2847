"""A query's bias as part of its weights, for GPUs: an addition less between products.

What a LayerNormalization puts out, x = scale * n + shift, has a weighted sum that is the same for every token,
since the numbers n of a token add up to nothing: sum(x / scale) = sum(shift / scale) = total. So a product with x
adds a bias by itself where its weights are weights + outer(1 / scale, bias) / total, exactly but for rounding.

As total could be next to nothing, the shift is moved first, each number by a little of its scale. What else reads x
takes that back in biases that are there: of the value, and of the product that a residual sum adds x to.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from tfbatch_export.rewrites.attention import PROJECTIONS, is_plain_attention
from tfbatch_export.rewrites.biased import Biased, biased
from tfbatch_export.rewrites.leading import ALONG_STATES
from tfbatch_export.rewrites.values import add_constant, is_weights, numbers, only_user, width_of

SCALE, SHIFT = 1, 2  # inputs of LayerNormalization
WEIGHTS, BIAS = 1, 2  # and of Attention
MOVED = 1 / 16  # of a number's scale: hundreds of them make a large total, and float16 holds x as well as before
LEAST = 1 / 64  # of the root mean square of scales, where one is smaller: 1 / scale then is part of total as well

Array = npt.NDArray[np.float64]


def fold_query_biases(graph: ir.Graph) -> None:
    """Leave a query no bias but zeros, in each Attention of what a norm puts out and nothing else reads but sums with
    biased products; a graph in float32."""
    for attention in graph:
        norm = attention.inputs[0].producer() if is_plain_attention(attention) and attention.inputs[0] else None
        if norm is None or norm.op_type != "LayerNormalization":
            continue
        scale, shift = [*norm.inputs[1:], None][:2]
        sums = sums_with(norm.outputs[0], attention)
        if sums is None or not (is_weights(scale) and is_weights(shift)):
            continue
        if not width_of(scale) == width_of(shift) == len(constant(attention, WEIGHTS)):
            continue
        if norm.attributes.get_int("axis", -1) in ALONG_STATES and constant(norm, SCALE).all():
            fold(graph, norm, attention, sums)


def sums_with(states: ir.Value, attention: ir.Node) -> list[Biased] | None:
    """The biased products that states are added to; None where something else reads them besides an attention."""
    found = []
    for node, index in states.uses():
        if node is attention:
            continue
        other = node.inputs[1 - index] if node.op_type == "Add" else None
        beside = biased(other.producer()) if other is not None and only_user(other) is node else None
        if beside is None:
            return None
        found.append(beside)
    return None if states.is_graph_output() else found


def fold(graph: ir.Graph, norm: ir.Node, attention: ir.Node, sums: list[Biased]) -> None:
    """Move a norm's shift, take the query's bias into its weights, and the move back from all biases."""
    scale, shift = constant(norm, SCALE), constant(norm, SHIFT)
    weights, bias = constant(attention, WEIGHTS), constant(attention, BIAS)
    least = LEAST * np.sqrt((scale**2).mean())
    away = np.copysign(1, (shift / scale).sum())
    move = away * np.copysign(MOVED * np.maximum(np.abs(scale), least), scale)
    bias -= move @ weights
    of_query = slice(len(bias) // len(PROJECTIONS))
    weights[:, of_query] += np.outer(1 / scale, bias[of_query]) / ((shift + move) / scale).sum()
    bias[of_query] = 0
    replace(graph, norm, SHIFT, shift + move)
    replace(graph, attention, WEIGHTS, weights)
    replace(graph, attention, BIAS, bias)
    for beside in sums:
        replace(graph, beside.addition, beside.place, constant(beside.addition, beside.place) - move)


def constant(node: ir.Node, place: int) -> Array:
    value = node.inputs[place]
    assert value is not None
    return numbers(value).astype(np.float64)


def replace(graph: ir.Graph, node: ir.Node, place: int, array: Array) -> None:
    """Give a node a constant of its own."""
    old = node.inputs[place]
    assert old is not None
    node.replace_input_with(place, add_constant(graph, f"{old.name}_moved", array.astype(np.float32)))
