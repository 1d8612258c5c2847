"""Embeddings (B, D): the states of a text's tokens, pooled and normalised in the graph (Sentence-BERT,
Reimers and Gurevych, 2019). The Hub's own pooler is not used."""

from pathlib import Path
from typing import Any

import torch
from tfbatch.bundles.pooling import Pooling, read_length, read_pooling
from transformers import PreTrainedModel

from tfbatch_export.families import Tensors
from tfbatch_export.heads import LogitsHead


class Embedding(LogitsHead):
    """Pooling is as the checkpoint's folder says. `last_hidden_state` is there for optimum, which looks for
    that name; run asks for the embedding alone."""

    output = "embedding"
    further_outputs: tuple[str, ...] = ("last_hidden_state",)
    unused: tuple[str, ...] = ("pooler.",)
    reads_mask = True

    def compute(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        return self.trace(model, inputs, more)[0]

    def trace(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> tuple[torch.Tensor, ...]:
        states = model(**inputs).last_hidden_state
        return pool(pooling_of(model), states, more["attention_mask"]), states

    def labels(self, _: Any) -> list[str]:
        return []

    def settings(self, checkpoint: Path, config: Any) -> dict[str, Any]:
        """With the length that texts are cut at, where the folder names one."""
        pooling, length = read_pooling(checkpoint), read_length(checkpoint)
        found = {"embedding_width": config.hidden_size, "pooling": pooling.mode, "normalised": pooling.normalised}
        return found | ({"max_length": length} if length else {})


def pooling_of(model: PreTrainedModel) -> Pooling:
    """As the folder has it that a model was loaded from; the default for one that was not."""
    return read_pooling(Path(model.name_or_path)) if model.name_or_path else Pooling()


def pool(pooling: Pooling, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`Pooling.of` as it is traced."""
    if pooling.mode == "cls":
        embedding = states[:, 0]
    else:
        real = states.masked_fill(mask.eq(0).unsqueeze(-1), 0)
        embedding = real.sum(1) / mask.sum(1, keepdim=True).to(states.dtype)
    return torch.nn.functional.normalize(embedding, dim=1) if pooling.normalised else embedding


HEAD = Embedding()
