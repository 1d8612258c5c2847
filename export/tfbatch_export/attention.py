"""Attention, which projects and attends in one, as products of their own and MultiHeadAttention."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from tfbatch_export.values import add_constant, is_weights

PROJECTIONS = 3  # query, key and value, side by side in the columns of Attention's weights


def is_plain_attention(node: ir.Node) -> bool:
    """Whether a node is an Attention of hidden states, weights, a bias and maybe lengths of rows, and of query, key
    and value of one size."""
    if node.op_type != "Attention" or set(node.attributes) - {"num_heads", "qkv_hidden_sizes"}:
        return False
    sizes = node.attributes.get("qkv_hidden_sizes")
    weighted = len(node.inputs) in (3, 4) and all(is_weights(value) for value in node.inputs[1:3])
    return weighted and (sizes is None or len(set(sizes.as_ints())) == 1)


def take_apart(graph: ir.Graph, node: ir.Node) -> None:
    """Give query, key and value of an Attention one product of its own."""
    hidden, weights, bias, lengths = [*node.inputs, None][:4]
    product = ir.node("MatMul", [hidden, weights])
    projected = ir.node("Add", [product.outputs[0], bias])
    parts = ir.node("Split", [projected.outputs[0]], {"axis": 2, "num_outputs": PROJECTIONS}, num_outputs=PROJECTIONS)
    replace(graph, node, [product, projected, parts], parts.outputs, None, lengths)


def take_apart_for(graph: ir.Graph, node: ir.Node, queried: ir.Value) -> None:
    """Let some tokens alone ask: `queried` are their states (B, tokens, H), keys and values are of all."""
    hidden, weights, bias, lengths = [*node.inputs, None][:4]
    assert weights is not None
    assert weights.const_value is not None
    parts = np.split(weights.const_value.numpy(), PROJECTIONS, axis=1)
    products = [
        ir.node("MatMul", [states, add_constant(graph, f"{weights.name}_{name}", np.ascontiguousarray(part))])
        for name, states, part in zip(("query", "key", "value"), (queried, hidden, hidden), parts, strict=True)
    ]
    replace(graph, node, products, [product.outputs[0] for product in products], bias, lengths)


def replace(
    graph: ir.Graph,
    node: ir.Node,
    before: Sequence[ir.Node],
    projected: Sequence[ir.Value],
    bias: ir.Value | None,
    lengths: ir.Value | None,
) -> None:
    """Put MultiHeadAttention, behind what projects for it, in the place of an Attention."""
    inputs = [*projected, bias, lengths]
    while inputs[-1] is None:
        inputs.pop()
    heads = {"num_heads": node.attributes["num_heads"]}
    attention = ir.node("MultiHeadAttention", inputs, heads, domain=node.domain)
    attention.outputs[0].type, attention.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], [*before, attention], node.outputs, attention.outputs)


def taken_apart(counts: Mapping[str, int], attentions: int) -> dict[str, int]:
    """What counts of operators become where so many Attention are taken apart."""
    if not attentions:
        return {}
    name, parts = "Attention", "MultiHeadAttention"
    return {name: counts[name] - attentions, parts: counts.get(parts, 0) + attentions}
