"""Of the last layer, only what the head reads.

A head that reads the state of the first token, as most that classify do, needs of the last layer the keys and
values of all tokens, and everything else for that token alone: of its products with weights, 10 of 12 parts are
otherwise made for tokens that nothing reads. That is 14 % of a model of six layers, and 7 % of one of twelve.

What is put out is the same but for rounding, since whatever is shortened treats each token by itself: products
with weights, normalisations, sums, and the queries of an Attention. That becomes MultiHeadAttention, whose queries
may be fewer than its keys; where a layer was traced as that, with a bias of places or turned by them, its queries
stay those of all tokens.

Two tokens are kept where one is read: onnxruntime multiplies a single row by another kernel, which adds in an order
that depends on the padding, and a row's bits would depend on its batch.
"""

from collections.abc import Container, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tfbatch_export.rewrites.attention import is_plain_attention, take_apart
from tfbatch_export.rewrites.values import add_constant, is_weights

STATES = 3  # the rank of states (B, L, H)
TOKENS = 1  # their axis of tokens
ALONG_STATES = (-1, 2)
LEAST = 2  # tokens that are kept
BY_ELEMENT = {
    "Add", "BiasGelu", "Div", "Erf", "FastGelu", "Gelu", "Mul", "Pow", "QuickGelu", "Relu", "Sigmoid", "Sub", "Tanh",
}  # fmt: skip


def keep_leading_tokens(model: ir.Model) -> int:
    """Shorten what is read by places alone to the tokens up to the last of these places.

    Returns:
        How many Attention became MultiHeadAttention.
    """
    graph = model.graph
    places = {node: place for node in graph if (place := place_read(node)) is not None}
    shortened = find_shortened(graph, places)
    if shortened:
        made = {value for node in shortened for value in node.outputs}
        last = max(place for node, place in places.items() if node.inputs[0] in made)
        shorten(graph, shortened, max(last + 1, LEAST))
        RemoveUnusedNodesPass()(model)
    return sum(node.op_type == "Attention" for node in shortened)


def shorten(graph: ir.Graph, nodes: Sequence[ir.Node], count: int) -> None:
    """Let nodes make the states of so many tokens alone."""
    bounds = [
        add_constant(graph, f"leading_{name}", np.array([value]))
        for name, value in (("first", 0), ("stop", count), ("axis", TOKENS))
    ]
    attentions = [node for node in nodes if node.op_type == "Attention"]
    by_token = [(node, index) for node in nodes for index in token_inputs(node) or ()]
    made = [value for node in nodes for value in node.outputs]
    leading: dict[ir.Value | None, ir.Value] = {}
    for node, index in (*by_token, *((node, 0) for node in attentions)):
        if (value := node.inputs[index]) is not None and value not in (*made, *leading):
            leading[value] = add_leading(graph, value, bounds, count)
    for value in made:
        value.shape = of_tokens(value.shape, count)
    for node, index in by_token:
        if (shorter := leading.get(node.inputs[index])) is not None:
            node.replace_input_with(index, shorter)
    for node in attentions:
        take_apart(graph, node, leading[node.inputs[0]])


def place_read(node: ir.Node) -> int | None:
    """The place of the token whose state alone a node reads, None where it does anything else."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != TOKENS or not is_states(node.inputs[0]):
        return None
    place = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    return int(place.numpy()) if place is not None and not place.shape.rank() and place.numpy() >= 0 else None


def find_shortened(graph: ir.Graph, readers: Container[ir.Node]) -> list[ir.Node]:
    """The nodes, in their order, that make states which are read by place alone, by `readers` in the end."""
    found: set[ir.Node] = set()

    def reads_by_token(node: ir.Node, index: int) -> bool:
        return index == 0 if node in readers else node in found and index in (token_inputs(node) or ())

    for node in reversed(graph):
        uses = [use for value in node.outputs for use in value.uses()]
        is_read_whole = any(value.is_graph_output() for value in node.outputs)
        if uses and not is_read_whole and all(reads_by_token(*use) for use in uses) and token_inputs(node) is not None:
            found.add(node)
    return [node for node in graph if node in found]


def token_inputs(node: ir.Node) -> list[int] | None:
    """Which inputs a node needs for no other tokens than it is to put out; None where it cannot put out fewer."""
    if is_plain_attention(node):
        return []  # of its one input, all
    if node.op_type in BY_ELEMENT:
        found = [index for index, value in enumerate(node.inputs) if not is_same_for_all(value)]
    elif node.op_type == "MatMul":
        found = [0] if is_weights(node.inputs[1]) else []
    elif node.op_type == "LayerNormalization":
        found = [0] if node.attributes.get_int("axis", -1) in ALONG_STATES else []
    elif node.op_type == "Split":
        found = [0] if node.attributes.get_int("axis", 0) in ALONG_STATES else []
    else:
        return None
    return found if found and all(is_states(node.inputs[index]) for index in found) else None


def is_states(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and value.shape.rank() == STATES


def is_same_for_all(value: ir.Value | None) -> bool:
    """Whether a value is a constant that all tokens share, or not there."""
    return value is None or (is_weights(value) and value.shape is not None and value.shape.rank() < STATES - 1)


def add_leading(graph: ir.Graph, value: ir.Value, bounds: Sequence[ir.Value], count: int) -> ir.Value:
    """The first tokens of states, right behind where these are made."""
    node = ir.node("Slice", [value, *bounds])
    leading = node.outputs[0]
    leading.type, leading.shape = value.type, of_tokens(value.shape, count)
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(maker, node)
    return leading


def of_tokens(shape: ir.Shape | None, count: int) -> ir.Shape | None:
    """A shape of states with so many tokens, or as few as it has."""
    if shape is None:
        return None
    there = shape[TOKENS]
    kept = min(there, count) if isinstance(there, int) else count
    return ir.Shape([*shape[:TOKENS], kept, *shape[TOKENS + 1 :]])
