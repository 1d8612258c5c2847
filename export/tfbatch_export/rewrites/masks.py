"""Which tokens attention looks at, said in the form that fused kernels take."""

import numpy as np
import onnx_ir as ir

from tfbatch_export.rewrites.attention import ROW_LENGTHS
from tfbatch_export.rewrites.values import add_constant


def mask_by_row_lengths(model: ir.Model) -> None:
    """Give every Attention the length of each row, by the input `attention_mask` (B, L), which is
    added where the graph was traced without it.

    Padding must be on the right. A mask of row lengths is the form that the fused kernels take; a
    four-dimensional one shuts them out.
    """
    graph = model.graph
    mask = next((value for value in graph.inputs if value.name == "attention_mask"), None) or add_mask(graph)
    axis = add_constant(graph, "attention_mask_axis", np.array([1]))
    total = ir.node("ReduceSum", [mask, axis], {"keepdims": 0})
    lengths = ir.node("Cast", [total.outputs[0]], {"to": ir.DataType.INT32})
    lengths.outputs[0].name = "row_lengths"
    graph.insert_before(graph[0], [total, lengths])
    for node in graph:
        if node.op_type == "Attention":
            if len(node.inputs) <= ROW_LENGTHS:
                node.resize_inputs(ROW_LENGTHS + 1)
            node.replace_input_with(ROW_LENGTHS, lengths.outputs[0])


def look_back_only(model: ir.Model) -> None:
    """Let every token see those before it and itself alone, where the graph was traced without that order."""
    for node in model.graph:
        if node.op_type == "Attention":
            node.attributes["unidirectional"] = ir.AttrInt64("unidirectional", 1)


def add_mask(graph: ir.Graph) -> ir.Value:
    """A second input `attention_mask` like the first, the token ids."""
    ids = graph.inputs[0]
    mask = ir.Value(name="attention_mask", type=ids.type, shape=ids.shape)
    graph.inputs.insert(1, mask)
    return mask
