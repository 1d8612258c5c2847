"""Attention, which projects and attends in one, as products of their own and MultiHeadAttention."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from tfbatch_export.rewrites.values import add_constant, is_weights

PROJECTIONS = ("query", "key", "value")  # side by side in the columns of Attention's weights
ROW_LENGTHS = 3  # the input of com.microsoft Attention that takes them, (B,) int32


def is_plain_attention(node: ir.Node) -> bool:
    """Whether a node is an Attention of hidden states, weights, a bias and maybe lengths of rows, and of query, key
    and value of one size."""
    if node.op_type != "Attention" or set(node.attributes) - {"num_heads", "qkv_hidden_sizes"}:
        return False
    sizes = node.attributes.get("qkv_hidden_sizes")
    has_no_more = len(node.inputs) in (ROW_LENGTHS, ROW_LENGTHS + 1)
    weighted = has_no_more and all(is_weights(value) for value in node.inputs[1:ROW_LENGTHS])
    return weighted and (sizes is None or len(set(sizes.as_ints())) == 1)


def has_row_lengths(node: ir.Node) -> bool:
    """Whether an Attention is of rows of several lengths, as those of texts are."""
    return len(node.inputs) > ROW_LENGTHS and node.inputs[ROW_LENGTHS] is not None


def take_apart(graph: ir.Graph, node: ir.Node, queried: ir.Value | None = None) -> None:
    """Give query, key and value of an Attention a product each, and put MultiHeadAttention behind them.

    Where `queried` are given, the states of some tokens (B, tokens, H), these alone ask; keys and values are of all.
    """
    hidden, weights, bias, lengths = [*node.inputs, None][: ROW_LENGTHS + 1]
    assert weights is not None
    assert weights.const_value is not None
    asking = hidden if queried is None else queried
    parts = np.split(weights.const_value.numpy(), len(PROJECTIONS), axis=1)
    products = [
        ir.node("MatMul", [states, add_constant(graph, f"{weights.name}_{name}", np.ascontiguousarray(part))])
        for name, states, part in zip(PROJECTIONS, (asking, hidden, hidden), parts, strict=True)
    ]
    inputs = [*(product.outputs[0] for product in products), bias, *([] if lengths is None else [lengths])]
    heads = {"num_heads": node.attributes["num_heads"]}
    attention = ir.node("MultiHeadAttention", inputs, heads, domain=node.domain)
    attention.outputs[0].type, attention.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [*products, attention], node.outputs, attention.outputs
    )


def taken_apart(counts: Mapping[str, int], attentions: int) -> dict[str, int]:
    """What counts of operators become where so many Attention are taken apart."""
    if not attentions:
        return {}
    name, parts = "Attention", "MultiHeadAttention"
    return {name: counts[name] - attentions, parts: counts.get(parts, 0) + attentions}
