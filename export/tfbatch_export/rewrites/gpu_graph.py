"""A graph in float16 as GPUs compute it fastest: fewer passes over memory between its products.

On a GPU half of a transformer's time is not its products of matrices, but what lies between them and
does no more than read numbers and write them again. So

- biases of query, key and value are not added to all three before they are attended with. A key's adds the
  same to all scores of a query, which softmax does not see; a value's adds itself to what comes out, since weights
  of attention come to one, and so can be part of the bias behind the next product. A query's is left where it is
  not part of its weights, see `query_bias`;
- a residual sum is made by what normalises it, `SkipLayerNormalization`, which onnxruntime does by itself only
  where nothing else reads the sum;
- embeddings of words, places and types are gathered, added and normalised by one kernel;
- patches of pictures are a product of their pixels.

Only what is in float16 is changed: what stays in float32 has its reasons.
"""

from collections import Counter

import numpy as np
import onnx_ir as ir

from tfbatch_export.rewrites.attention import PROJECTIONS, is_plain_attention, take_apart, taken_apart
from tfbatch_export.rewrites.biased import biased
from tfbatch_export.rewrites.norms import join_embeddings, join_residual
from tfbatch_export.rewrites.operators import count_operators
from tfbatch_export.rewrites.patches import multiply_patches
from tfbatch_export.rewrites.values import add_constant, is_half, is_weights, numbers, only_user, width_of

BIAS = 3  # the input of MultiHeadAttention that takes it, (3 x hidden)


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


def move_biases(graph: ir.Graph, attention: ir.Node) -> None:
    """Leave an attention no bias: the key's changes nothing, the value's goes behind the next product, the query's
    is added to it alone, where there is any."""
    bias = attention.inputs[BIAS] if len(attention.inputs) > BIAS else None
    query = attention.inputs[0]
    behind = only_user(attention.outputs[0])
    following = biased(only_user(behind.outputs[0])) if behind is not None else None
    if query is None or bias is None or not (is_weights(bias) and is_half(bias)):
        return
    if following is None or following.product is not behind or behind.inputs[0] is not attention.outputs[0]:
        return
    if not is_half(following.bias):
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
    attention.replace_input_with(BIAS, None)
    if of_query.any():
        constant = add_constant(graph, f"{name}_query", of_query.astype(np.float16))
        addition = ir.node("Add", [query, constant])
        addition.outputs[0].type, addition.outputs[0].shape = query.type, query.shape
        graph.insert_before(attention, addition)
        attention.replace_input_with(0, addition.outputs[0])
