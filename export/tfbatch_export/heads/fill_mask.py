"""Logits (B, vocabulary) of the token at one position of each text (BERT's masked language model)."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.tokenizer import read_tokenizer
from tfbatch_export.families import Axes, Tensors
from tfbatch_export.heads import LogitsHead


class MaskFiller(LogitsHead):
    """The model's own head, given the states at `positions` (B,) alone: over all positions of 512 tokens
    its logits would take 60 MB a row."""

    more_inputs: ClassVar[Axes] = {"positions": {0: "batch"}}

    def compute(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        def keep_one(_: torch.nn.Module, __: Any, found: Any) -> Any:
            found.last_hidden_state = take(found.last_hidden_state, more["positions"])
            return found

        hook = model.base_model.register_forward_hook(keep_one)
        try:
            logits: torch.Tensor = model(**inputs).logits
        finally:
            hook.remove()
        return logits[:, 0]

    def reference(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        return take(model(**inputs).logits, more["positions"])[:, 0]

    def labels(self, _: Any) -> list[str]:
        return []

    def examples(self, _: torch.Tensor, mask: torch.Tensor, __: Any) -> Tensors:
        """A token of each text: neither the first nor the last, where there are others."""
        return {"positions": mask.sum(1) // 2}

    def settings(self, checkpoint: Path, config: Any) -> dict[str, Any]:
        token = read_tokenizer(checkpoint).mask_token_id
        if token is None:
            raise BadConfiguration(f"{checkpoint}: the tokenizer has no token that stands for what is to be filled in")
        return {"mask_token_id": token, "vocabulary": config.vocab_size}


def take(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(B, L, D) at one position of each row (B,): (B, 1, D)."""
    return values.gather(1, positions[:, None, None].expand(-1, 1, values.shape[2]))


HEAD = MaskFiller()
