"""What encoders of pictures have in common where their states become one embedding: pixels in, a vector out."""

from pathlib import Path
from typing import Any, Self

import torch
from tfbatch.errors import UsageError
from transformers import PreTrainedModel

from tfbatch_export.config import POOLINGS
from tfbatch_export.families import Tensors
from tfbatch_export.families._image import SeenImages


class PooledPatches(torch.nn.Module):
    """The pooled states of a model of pictures."""

    def __init__(self, model: PreTrainedModel, family: "ImageEmbedding") -> None:
        super().__init__()
        self.model = model
        self.family = family

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 to embeddings (B, D) float32."""
        return self.family.embed(self.model, pixel_values)


class ImageEmbedding(SeenImages):
    """The state of the class token, `cls`, or the mean of those of all patches, `mean`.

    `mode` is None where it is left to the family, which has what its paper takes. The Hub's own
    pooler, trained for another purpose if at all, is not used. `is_normalised` is to length one.
    """

    output = "embedding"
    hub_class = "AutoModel"
    unused: tuple[str, ...] = ("pooler.",)
    modes: tuple[str, ...] = POOLINGS

    def __init__(self, mode: str | None = None, *, is_normalised: bool = False) -> None:
        self.mode = mode
        self.is_normalised = is_normalised

    def pooled(self, mode: str | None, *, is_normalised: bool) -> Self:
        """The same family, pooled as an export asks for it.

        Raises:
            UsageError: its models cannot be.
        """
        if mode not in (None, *self.modes):
            raise UsageError(f"--pooling {mode}: these models can be pooled by {' or '.join(self.modes)}")
        return type(self)(mode, is_normalised=is_normalised)

    def mode_of(self, _: Any) -> str:
        """How a model is pooled; by itself as most papers do."""
        return self.mode or "cls"

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return PooledPatches(self.traced(model), self)

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """As for other models of pictures, with the form of the embedding."""
        settings = super().write_preprocessor(checkpoint, config, folder)
        return settings | {
            "embedding_width": config.hidden_size,
            "pooling": self.mode_of(config),
            "normalised": self.is_normalised,
        }

    def embed(self, model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) to embeddings (B, D), both float32."""
        embedding = self.pool(model, model(pixel_values=pixel_values).last_hidden_state)
        return torch.nn.functional.normalize(embedding, dim=1) if self.is_normalised else embedding

    def pool(self, model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
        """States (B, tokens, D) to (B, D)."""
        if self.mode_of(model.config) == "cls":
            return states[:, 0]
        return states[:, self.leading_tokens(model.config) :].mean(1)

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        return self.embed(model, inputs["pixel_values"])
