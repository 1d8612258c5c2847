"""The operators of a graph: counted, and held to what its layers must come to."""

from collections import Counter

import onnx_ir as ir
from tfbatch.errors import ExportNotVerified

RESIDUAL = 3  # the output of com.microsoft SkipLayerNormalization that is the sum itself


def count_operators(model: ir.Model) -> dict[str, int]:
    """How often each type of operator stands in a graph, in order of name."""
    return dict(sorted(Counter(node.op_type for node in model.graph).items()))


def check_fusion(counts: dict[str, int], expected: dict[str, int]) -> None:
    """Hold a graph to what the layers of its family must come to, at least: a head may be fused too.
    Zero means: none may be left.

    Raises:
        ExportNotVerified: a layer that was not fused, or something that is left.
    """
    wrong = [
        f"{found} {name} of {count}"
        for name, count in expected.items()
        if (found := counts.get(name, 0)) < count or (found and not count)
    ]
    if wrong:
        raise ExportNotVerified(
            f"the graph is not fused as it should be: it has {', '.join(wrong)}. "
            f"Other versions of torch, transformers or onnxscript than those that are pinned may be why, or what is "
            f"rare in a checkpoint's config.json: one attention head, qkv_bias false, is_decoder."
        )
