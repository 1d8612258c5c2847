"""Normalisations for GPUs, each in one operator with the sum before it: of a layer and its input, or of embeddings."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from tfbatch_export.rewrites.biased import biased
from tfbatch_export.rewrites.operators import RESIDUAL
from tfbatch_export.rewrites.values import is_half, is_weights, only_user, put_in_place, width_of

MICROSOFT, PLACES = "com.microsoft", "places"


def join_residual(graph: ir.Graph, normalisation: ir.Node) -> ir.Node | None:
    """Let one operator add a product's bias, what the layer began with, and normalise; None where that is not what
    is normalised."""
    hidden = normalisation.inputs[0]
    total = None if hidden is None else hidden.producer()
    if total is None or total.op_type != "Add" or normalisation.attributes.get_int("axis", -1) != -1:
        return None
    for value, rest in (total.inputs, total.inputs[::-1]):
        inner = None if value is None or is_weights(rest) else biased(value.producer())
        if inner is None or not is_half(inner.bias) or only_user(inner.addition.outputs[0]) is not total:
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


def rows_alike(*values: ir.Value | None) -> bool:
    """Whether values are known to be of one shape (B, L, H)."""
    shapes = [None if value is None or value.shape is None else tuple(map(str, value.shape)) for value in values]
    return shapes[0] is not None and len(shapes[0]) == 3 and len(set(shapes)) == 1


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
