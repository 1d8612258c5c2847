"""What image encoders have in common: pixels in, logits out."""

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from tfbatch.errors import BadConfiguration
from transformers import AutoImageProcessor, PreTrainedModel

from tfbatch_export.families import Axes, Tensors

BATCH_SIZES = (1, 2, 7)
PROCESSED = {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}  # steps the run stage knows


class ImageWrapper(torch.nn.Module):
    """Logits of an image model."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 to logits (B, labels) float32."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class ImageFamily:
    """An encoder of square patches behind one class token."""

    inputs = ("pixel_values",)

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return ImageWrapper(model)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        pixels = torch.zeros(2, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": pixels}, {"pixel_values": {0: "batch"}}

    def complete(self, graph: onnx_ir.Model) -> None:
        """Images have no padding to mask."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """`preprocessor_config.json`, held to the steps that the run stage takes."""
        if not (checkpoint / "preprocessor_config.json").is_file():
            raise BadConfiguration(
                f"{checkpoint} has no preprocessor_config.json: how pictures are prepared is unknown"
            )
        with tempfile.TemporaryDirectory() as scratch:
            AutoImageProcessor.from_pretrained(checkpoint, backend="pil").save_pretrained(scratch)
            content = (Path(scratch) / "preprocessor_config.json").read_bytes()
        settings = json.loads(content)
        unknown = [
            name for name, value in settings.items() if name.startswith("do_") and value and name not in PROCESSED
        ]
        size = settings.get("size", {})
        if (
            unknown
            or not settings.get("do_resize")
            or size != {"height": config.image_size, "width": config.image_size}
        ):
            raise BadConfiguration(
                f"{checkpoint}: the image processor resizes to {size} and does {', '.join(unknown) or 'nothing else'}; "
                f"what can be run is a plain resize to the model's {config.image_size} x {config.image_size}"
            )
        if config.num_channels != 3:
            raise BadConfiguration(f"{checkpoint} reads {config.num_channels} channels; pictures are given as RGB")
        (folder / "preprocessor_config.json").write_bytes(content)
        return {"tokens_per_image": (config.image_size // config.patch_size) ** 2 + 1}

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels in every batch size."""
        generator = torch.Generator().manual_seed(0)
        side = config.image_size
        return {
            f"{size} x {side} x {side}": {
                "pixel_values": torch.randn(size, config.num_channels, side, side, generator=generator)
            }
            for size in BATCH_SIZES
        }
