"""Embeddings (B, D): the states of a text's tokens, pooled and normalised in the graph (Sentence-BERT,
Reimers and Gurevych, 2019). The Hub's own pooler is not used."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.families import Tensors
from tfbatch_export.heads import LogitsHead
from tfbatch_export.pooling import Pooling, read_length, read_pooling


class Embedding(LogitsHead):
    """Pooling is as the checkpoint's folder says."""

    output = "embedding"
    unused: tuple[str, ...] = ("pooler.",)
    reads_mask = True

    def compute(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        return pooling_of(model).pool(model(**inputs).last_hidden_state, more["attention_mask"])

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


HEAD = Embedding()
