"""What text encoders have in common where their states become one embedding: ids in, right-padded, a vector out."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._text import AXES, TextFamily
from tfbatch_export.pooling import Pooling, read_length, read_pooling


class Embedding(torch.nn.Module):
    """Pooled states of a text model. The mask is for the pooling alone: attention is traced without one."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """(B, L) int64 three times to embeddings (B, D) float32."""
        states = self.model(input_ids=input_ids, token_type_ids=token_type_ids).last_hidden_state
        return self.pooling.pool(states, attention_mask)


class TextEmbedding(TextFamily):
    """A text encoder whose pooling and normalisation are in the graph; the Hub's own pooler is not used."""

    output = "embedding"
    unused: tuple[str, ...] = ("pooler.",)

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return Embedding(model, pooling_of(model))

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        """As for other text models, with the mask, in the order of the graph's inputs."""
        samples, _ = super().trace_inputs(config)
        samples["attention_mask"] = torch.ones_like(samples["input_ids"])
        return {name: samples[name] for name in self.inputs}, dict.fromkeys(self.inputs, AXES)

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """As for other text models; texts are cut where the checkpoint says so."""
        pooling, length = read_pooling(checkpoint), read_length(checkpoint)
        settings = super().write_preprocessor(checkpoint, config, folder)
        return settings | {
            "max_length": min(settings["max_length"], length or settings["max_length"]),
            "embedding_width": config.hidden_size,
            "pooling": pooling.mode,
            "normalised": pooling.normalised,
        }

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        return pooling_of(model).pool(model(**inputs).last_hidden_state, inputs["attention_mask"])


def pooling_of(model: PreTrainedModel) -> Pooling:
    """As the folder has it that a model was loaded from; the default for one that was not."""
    return read_pooling(Path(model.name_or_path)) if model.name_or_path else Pooling()
