"""Logits (B, L, 2) of the answer's starting at each token and of its ending there."""

from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.families import Tensors
from tfbatch_export.heads import LogitsHead


class Spans(LogitsHead):
    """The Hub's models have them as two outputs. They are no labels of a token, so none are compared."""

    output = "spans"

    def compute(self, model: PreTrainedModel, inputs: Tensors, _: Tensors) -> torch.Tensor:
        found = model(**inputs)
        return torch.stack([found.start_logits, found.end_logits], dim=-1)

    def labels(self, _: Any) -> list[str]:
        return []


HEAD = Spans()
