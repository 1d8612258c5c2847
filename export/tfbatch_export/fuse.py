"""A plain ONNX graph to one of onnxruntime's fused operators."""

import sys
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from tfbatch.errors import ExportNotVerified

from tfbatch_export.rewrites.operators import RESIDUAL
from tfbatch_export.rewrites.values import is_weights


class QuickGelu(RewriteRuleClassBase):
    """x * sigmoid(alpha * x), CLIP's approximation of GELU, to the operator of that name."""

    def pattern(self, op: Any, x: Any, alpha: Any) -> Any:
        return op.Mul(x, op.Sigmoid(op.Mul(x, alpha)))

    def check(self, op: Any, alpha: ir.Value, **_: Any) -> MatchResult:  # noqa: ARG002
        result = MatchResult()
        if alpha.const_value is None or alpha.const_value.size != 1:
            return result.fail("alpha is no constant number", alpha)
        return result

    def rewrite(self, op: Any, x: ir.Value, alpha: ir.Value) -> Any:
        assert alpha.const_value is not None
        return op.QuickGelu(x, alpha=float(alpha.const_value.numpy().item()), _domain="com.microsoft")


def fuse(model: ir.Model) -> ir.Model:
    """Replace the operators of each layer by Attention and BiasGelu; sums stay beside their LayerNormalization."""
    fused, _ = optimize_for_ort(model, clear_metadata=True)
    RewriteRuleSet([QuickGelu.rule()], commute=True).apply_to_model(fused)
    for node in list(fused.graph):
        if node.op_type == "SkipLayerNormalization":
            split_skip_layer_normalization(node)
    join_weights(fused)
    return fused


def join_weights(model: ir.Model) -> None:
    """Put the weights that an operator takes as one, as query, key and value, together once and for all: else
    every runtime does so each time it loads the graph."""

    def is_of_weights(node: ir.Node) -> bool:
        return node.op_type == "Concat" and all(map(is_weights, node.inputs))

    fold_constants(model, should_fold=is_of_weights, output_size_limit=sys.maxsize)
    RemoveUnusedNodesPass()(model)
    if any(map(is_of_weights, model.graph)):
        raise ExportNotVerified("weights are joined each time the graph is run; another onnxscript may be why")


def split_skip_layer_normalization(node: ir.Node) -> None:
    """Take the residual sum out of the normalisation again.

    onnxruntime's kernel for the two in one takes eight times as long on a processor as those for
    each. On a GPU it is the faster one, and `gpu_graph` puts them together again.
    """
    hidden, skip, scale, shift, bias = [*node.inputs, None, None][:5]
    normalised, residual = node.outputs[0], node.outputs[3] if len(node.outputs) > RESIDUAL else None
    added = [] if bias is None else [ir.node("Add", [hidden, bias])]
    total = ir.node("Add", [added[0].outputs[0] if added else hidden, skip])
    inputs = [total.outputs[0], scale] if shift is None else [total.outputs[0], scale, shift]
    normalisation = ir.node(
        "LayerNormalization", inputs, {"axis": -1, "epsilon": node.attributes["epsilon"].as_float()}
    )
    old, new = [normalised], [normalisation.outputs[0]]
    if residual is not None:
        old, new = [*old, residual], [*new, total.outputs[0]]
    for before, after in zip(old, new, strict=True):
        after.type, after.shape = before.type, before.shape
    total.outputs[0].type, total.outputs[0].shape = normalised.type, normalised.shape
    if added and hidden is not None:
        added[0].outputs[0].type, added[0].outputs[0].shape = hidden.type, hidden.shape
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [*added, total, normalisation], old, new)
