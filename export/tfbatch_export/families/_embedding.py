"""What text encoders have in common where their states become one embedding: ids in, right-padded, a vector out."""

from pathlib import Path
from typing import Any

import torch
from tfbatch.pooling import Pooling, read_length, read_pooling
from transformers import PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._text import AXES, TextFamily


class Embedding(torch.nn.Module):
    """States of a text model, pooled and as they are. The mask is for the pooling alone: attention is
    traced without one."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) int64 three times to embeddings (B, D) and states (B, L, D), both float32."""
        states = self.model(input_ids=input_ids, token_type_ids=token_type_ids).last_hidden_state
        return pool(self.pooling, states, attention_mask), states


class TextEmbedding(TextFamily):
    """A text encoder whose pooling and normalisation are in the graph; the Hub's own pooler is not used.

    `last_hidden_state` is there for optimum, which looks for that name; run asks for the embedding alone.
    """

    output = "embedding"
    further_outputs: tuple[str, ...] = ("last_hidden_state",)
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
        return pool(pooling_of(model), model(**inputs).last_hidden_state, inputs["attention_mask"])


def pooling_of(model: PreTrainedModel) -> Pooling:
    """As the folder has it that a model was loaded from; the default for one that was not."""
    return read_pooling(Path(model.name_or_path)) if model.name_or_path else Pooling()


def pool(pooling: Pooling, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`Pooling.pool` as it is traced."""
    if pooling.mode == "cls":
        embedding = states[:, 0]
    else:
        real = states.masked_fill(mask.eq(0).unsqueeze(-1), 0)
        embedding = real.sum(1) / mask.sum(1, keepdim=True).to(states.dtype)
    return torch.nn.functional.normalize(embedding, dim=1) if pooling.normalised else embedding
