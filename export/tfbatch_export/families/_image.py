"""What models of pictures of one size have in common: pixels in."""

from pathlib import Path
from typing import Any

import onnx_ir
import torch
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.preprocessor import check_pixels, check_steps, copy_preprocessor
from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._encoder import class_names
from tfbatch_export.trace import UNMASKED


class OfPixels(torch.nn.Module):
    """One output of a model of pictures, by its name."""

    def __init__(self, model: PreTrainedModel, output: str) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 to logits (B, labels) or pixels (B, 3, H', W') float32."""
        found: torch.Tensor = getattr(self.model(pixel_values=pixel_values), self.output)
        return found


class FixedSizeImages:
    """A model of square patches of pictures of one size.

    `keeps_shape` says that pictures may be resized by their shorter edge before the crop, which a
    mask beside them would not be.
    """

    output: str
    attention: str | None = UNMASKED
    further_outputs: tuple[str, ...] = ()
    hub_class: str | None = None
    unused: tuple[str, ...] = ()
    is_inferred = True
    keeps_shape = False

    def labels(self, config: Any) -> list[str]:
        """Of what has logits only."""
        return class_names(config) if self.output == "logits" else []

    def side(self, config: Any) -> int:
        """Of the pictures that the model sees, in pixels."""
        return int(config.image_size)

    def leading_tokens(self, _: Any) -> int:
        """How many tokens stand before those of patches."""
        return 1

    def traced(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model as it is captured."""
        return model

    def complete(self, graph: onnx_ir.Model) -> None:
        """Images have no padding to mask."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """`preprocessor_config.json`, held to the steps that the run stage takes."""
        settings, side = copy_preprocessor(checkpoint, folder), self.side(config)
        check_steps(checkpoint, settings, side, keeps_shape=self.keeps_shape)
        if config.num_channels != 3:
            raise BadConfiguration(f"{checkpoint} reads {config.num_channels} channels; pictures are given as RGB")
        check_pixels(checkpoint, settings)
        return {"tokens_per_image": (side // config.patch_size) ** 2 + self.leading_tokens(config)}


def random_pixels(
    config: Any, count: int, generator: torch.Generator | None = None, *, side: int | None = None
) -> torch.Tensor:
    """(count, 3, H, W) float32, normal; of the configuration's side where none is given."""
    side = side or config.image_size
    return torch.randn(count, config.num_channels, side, side, generator=generator)


class SeenImages(FixedSizeImages):
    """A model that takes pictures alone and says something of them."""

    inputs: tuple[str, ...] = ("pixel_values",)
    keeps_shape = True
    batch_sizes = (1, 2, 7)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        return {"pixel_values": random_pixels(config, 2, side=self.side(config))}, {"pixel_values": {0: "batch"}}

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels in every batch size."""
        generator = torch.Generator().manual_seed(0)
        side = self.side(config)
        return {
            f"{size} x {side} x {side}": {"pixel_values": random_pixels(config, size, generator, side=side)}
            for size in self.batch_sizes
        }


class ImageClassifier(SeenImages):
    """Logits over labels."""

    output = "logits"

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return OfPixels(self.traced(model), self.output)

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits
