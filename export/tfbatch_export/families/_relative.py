"""Positions that are told by how far two tokens are apart, as the bias of one fused operator.

transformers computes such attention step by step alone, and no rewriting rule of onnxscript knows its
scores. What is traced here is onnxruntime's MultiHeadAttention itself, whose `attention_bias` takes what
the distances add to them. Padding goes in beside it as the length of each row, (B,) int32, which
onnxruntime and OpenVINO both take together with a bias: so the bias of a text does not depend on what
it is batched with, and where a bias is made of distances alone it is one for the whole batch.

Distances fall into buckets by their logarithm. The bucket of each is looked up in a table that is made
when a model is exported: logarithms that are whole numbers round to either side, as each runtime likes.
"""

from typing import Any

import onnx_ir
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._near import row_lengths

ROW_LENGTHS = "row_lengths"
ALL_MASK_ATTENTION_FUNCTIONS.register(ROW_LENGTHS, row_lengths)


class RelativePositions(Encoder):
    """A plain encoder whose attention is one MultiHeadAttention a layer; its mask is traced."""

    attention: str | None = None
    traces_mask = True

    def expected(self, config: Any) -> dict[str, int]:
        plain = super().expected(config)
        return {"MultiHeadAttention": plain.pop("Attention"), **plain}

    def complete(self, graph: onnx_ir.Model) -> None:
        """Nothing: the graph was traced with its mask."""
