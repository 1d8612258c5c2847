"""What models of pictures of one size have in common: pixels in."""

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from tfbatch.errors import BadConfiguration
from transformers import AutoImageProcessor, PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._encoder import class_names
from tfbatch_export.trace import UNMASKED

PROCESSED = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}  # what run can do


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
    """A model of square patches of pictures of one size."""

    output: str
    attention: str | None = UNMASKED
    further_outputs: tuple[str, ...] = ()
    hub_class: str | None = None
    unused: tuple[str, ...] = ()
    is_inferred = True

    def labels(self, config: Any) -> list[str]:
        """Of what has logits only."""
        return class_names(config) if self.output == "logits" else []

    def complete(self, graph: onnx_ir.Model) -> None:
        """Images have no padding to mask."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """`preprocessor_config.json`, held to the steps that the run stage takes."""
        settings = copy_preprocessor(checkpoint, folder)
        side = {"height": config.image_size, "width": config.image_size}
        unknown = [name for name in steps(settings) if name not in PROCESSED]
        size = settings.get("crop_size" if settings.get("do_center_crop") else "size", {})
        resized = settings.get("size", {})
        fits = all(resized.get(name, 0) >= side[name] for name in side) and size == side
        if unknown or not settings.get("do_resize") or not fits:
            raise BadConfiguration(
                f"{checkpoint}: the image processor gives {size}, resized to {resized}, "
                f"and does {', '.join(unknown) or 'nothing else'}; what can be run is a plain resize, with or "
                f"without a central crop, to the model's {config.image_size} x {config.image_size}"
            )
        if config.num_channels != 3:
            raise BadConfiguration(f"{checkpoint} reads {config.num_channels} channels; pictures are given as RGB")
        return {"tokens_per_image": (config.image_size // config.patch_size) ** 2 + 1}


def copy_preprocessor(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Write a checkpoint's `preprocessor_config.json` as today's processors save it; returns it.

    Raises:
        BadConfiguration: it has none.
    """
    if not (checkpoint / "preprocessor_config.json").is_file():
        raise BadConfiguration(f"{checkpoint} has no preprocessor_config.json: how pictures are prepared is unknown")
    with tempfile.TemporaryDirectory() as scratch:
        AutoImageProcessor.from_pretrained(checkpoint, backend="pil").save_pretrained(scratch)
        content = (Path(scratch) / "preprocessor_config.json").read_bytes()
    (folder / "preprocessor_config.json").write_bytes(content)
    settings: dict[str, Any] = json.loads(content)
    return settings


def steps(settings: dict[str, Any]) -> list[str]:
    """What an image processor does."""
    return [name for name, value in settings.items() if name.startswith("do_") and value]


def random_pixels(config: Any, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """(count, 3, H, W) float32, normal."""
    return torch.randn(count, config.num_channels, config.image_size, config.image_size, generator=generator)


class ImageClassifier(FixedSizeImages):
    """Logits over labels."""

    inputs: tuple[str, ...] = ("pixel_values",)
    output = "logits"
    batch_sizes = (1, 2, 7)

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return OfPixels(model, self.output)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        return {"pixel_values": random_pixels(config, 2)}, {"pixel_values": {0: "batch"}}

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels in every batch size."""
        generator = torch.Generator().manual_seed(0)
        side = config.image_size
        return {
            f"{size} x {side} x {side}": {"pixel_values": random_pixels(config, size, generator)}
            for size in self.batch_sizes
        }
