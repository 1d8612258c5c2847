"""Pictures held against the texts of labels, which are told at run.

How near the two are is the cosine of their embeddings, times a learnt scale. The graph of pictures
takes the embeddings of texts as an input: a graph of their own makes them, once.
"""

from pathlib import Path
from typing import Any

import torch
from tfbatch.errors import BadConfiguration

from tfbatch_export.families import Axes, Family, Tensors
from tfbatch_export.families._towers import PictureTower, TextTower

LABELS = 5  # texts that pictures are held against where graphs are compared


class OfPicturesAndTexts(torch.nn.Module):
    """Logits of pictures over texts, whose embeddings are of length one."""

    def __init__(self, tower: torch.nn.Module, scale: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.scale, self.bias = torch.nn.Buffer(scale), torch.nn.Buffer(bias)

    def forward(self, pixel_values: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) and (labels, D) to (B, labels), all float32."""
        pictures = torch.nn.functional.normalize(self.tower(pixel_values), dim=1)
        return torch.matmul(pictures, text_embeds.t()) * self.scale + self.bias


class LabelledPictures(PictureTower):
    """Logits of pictures over labels that are told at run."""

    inputs: tuple[str, ...] = ("pixel_values", "text_embeds")
    output = "logits"
    hub_class = None
    independent: bool  # a label's score does not depend on what other labels there are

    def __init__(self, texts: TextTower) -> None:
        self.texts = texts
        self.sides: dict[str, Family] = {"text": texts}

    def wrap(self, model: Any) -> torch.nn.Module:
        scale = model.logit_scale.detach().exp()
        return OfPicturesAndTexts(self.tower(model), scale, self.bias(model))

    def bias(self, model: Any) -> torch.Tensor:
        """What a model adds to every logit."""
        return torch.zeros_like(model.logit_scale)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        inputs, axes = super().trace_inputs(config)
        return inputs | {"text_embeds": self._texts(config)}, axes | {"text_embeds": {0: "labels"}}

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """What is needed for pictures, and for the texts of labels."""
        if (seen := self.width(config)) != (read := self.texts.width(config)):
            raise BadConfiguration(
                f"{checkpoint}: pictures become {seen:,} numbers and texts {read:,}; they must be as many"
            )
        settings = super().write_preprocessor(checkpoint, config, folder)
        settings |= self.texts.write_preprocessor(checkpoint, config, folder)
        return settings | {"independent_labels": int(self.independent)}

    def reference(self, model: Any, inputs: Tensors) -> torch.Tensor:
        """As the Hub's forward goes on once it has the embeddings of texts."""
        pictures = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        pictures = pictures / pictures.norm(dim=1, keepdim=True)
        logits: torch.Tensor = pictures @ inputs["text_embeds"].t() * model.logit_scale.exp() + self.bias(model)
        return logits

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        return {
            name: batch | {"text_embeds": self._texts(config)} for name, batch in super().parity_batches(config).items()
        }

    def _texts(self, config: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        texts = torch.randn(LABELS, self.width(config), generator=generator)
        return torch.nn.functional.normalize(texts, dim=1)
