"""A fused graph to those that are run: in float32 for processors, in float16 for GPUs.

fp32: on processors onnxruntime's `Attention` makes query, key and value row by row and head by head, and a row's
length is seldom a multiple of what its kernel takes at once. So where rows have lengths, these are products over
all rows, with `MultiHeadAttention` behind them. Pictures are of one size, and would lose by that.

fp16: weights and activations, not inputs and outputs. What float16 does not hold or do well stays
float32, by name: sums over many numbers, what guards a division, the angles of sines, what is ranked,
and every node that was seen to read or make a number too large. On GPUs what normalises and the
fused attentions do their own sums in float32. What is in float16 is put as GPUs compute it fastest, see
`query_bias` and `gpu_graph`.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tfbatch_export.families import Tensors
from tfbatch_export.ranges import find_overflowing
from tfbatch_export.rewrites.attention import has_row_lengths, is_plain_attention, take_apart, taken_apart
from tfbatch_export.rewrites.gpu_graph import suit_gpus
from tfbatch_export.rewrites.operators import count_operators
from tfbatch_export.rewrites.query_bias import fold_query_biases

ANGLES = {"Cos", "Sin"}
KEPT = ANGLES | {
    "Clip", "CumSum", "LogSoftmax", "Max", "Min", "Pow", "Range", "ReduceL2", "ReduceMean", "ReduceSum",
    "ReduceSumSquare", "Softmax", "TopK", "Upsample",
}  # fmt: skip


def write_fp32(source: Path, target: Path) -> dict[str, int]:
    """Make the graph in float32 of a fused one.

    Returns:
        How many fused operators there must be of those that become more or fewer.
    """
    model = ir.load(source)
    attentions = [node for node in find_attentions(model) if has_row_lengths(node)]
    if not attentions:
        shutil.copyfile(source, target)
        return {}
    changed = take_all_apart(model, attentions)
    ir.save(model, target)
    return changed


def find_attentions(model: ir.Model) -> list[ir.Node]:
    """Those that can be taken apart."""
    return [node for node in model.graph if is_plain_attention(node)]


def take_all_apart(model: ir.Model, attentions: Sequence[ir.Node]) -> dict[str, int]:
    """Take some Attention apart, and say how many of them and of what they become there are then."""
    before = count_operators(model)
    for node in attentions:
        take_apart(model.graph, node)
    RemoveUnusedNodesPass()(model)  # the weights as they were together
    return taken_apart(before, len(attentions))


def write_fp16(source: Path, target: Path, batches: Mapping[str, Tensors]) -> tuple[dict[str, int], list[str]]:
    """Make the graph in float16 of a fused one, as GPUs compute it fastest; how large its numbers become is seen on
    some batches.

    Returns:
        How many fused operators there must be of those that become more or fewer; the names of nodes that stay
        in float32.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    fused = ir.load(source)
    fold_query_biases(fused.graph)
    RemoveUnusedNodesPass()(fused)  # weights as they were, which nothing reads
    model = onnx.shape_inference.infer_shapes(ir.to_proto(fused))
    kept = find_kept(ir.from_proto(model).graph, find_overflowing(model, batches))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights next to zero, which become the smallest there is
        proto = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=True, op_block_list=[], node_block_list=kept
        )
    halved = ir.from_proto(proto)
    halved.graph.sort()  # what was added lies at the end
    remove_detours(halved.graph)
    changed = suit_gpus(halved)
    halved.graph.sort()
    RemoveUnusedNodesPass()(halved)
    ir.save(halved, target)
    return changed, kept


def find_kept(graph: ir.Graph, overflowing: set[str]) -> list[str]:
    """The names of nodes of floats that stay in float32, in their order."""
    chosen = {node for node in graph if node.op_type in KEPT or node.name in overflowing}
    for node in graph:
        if node.op_type in ANGLES:
            chosen.update(makers(node))
    return [str(node.name) for node in graph if node in chosen and any(map(is_float, (*node.inputs, *node.outputs)))]


def makers(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that an angle is made by, back to positions, which are whole numbers."""
    for value in node.inputs:
        if value is not None and is_float(value) and (maker := value.producer()) is not None:
            yield maker
            yield from makers(maker)


def remove_detours(graph: ir.Graph) -> None:
    """Let what goes from float32 to float32 go there directly. The converter leads it by float16, where
    small differences and large numbers are lost."""
    for back in graph:
        half = back.inputs[0] if casts_to(back, ir.DataType.FLOAT) else None
        there = None if half is None else half.producer()
        whole = there.inputs[0] if there is not None and casts_to(there, ir.DataType.FLOAT16) else None
        if whole is not None and is_float(whole) and not back.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(back.outputs[0], whole)


def is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def casts_to(node: ir.Node, kind: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == kind
