"""What masked image models have in common: pixels and a mask in, all pixels out.

The Hub's own exports leave the mask out, or draw it inside the graph; here it is an input, so that
a row's mask is the run stage's to choose and the same each time.
"""

from pathlib import Path
from typing import Any

import torch
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._image import FixedSizeImages, random_pixels

MASK_RATIO = 0.6  # SimMIM's, for checkpoints that name none


def mask_settings(config: Any, *, patch: int, unit: int, ratio: float | None, norm_pix_loss: bool) -> dict[str, Any]:
    """What run must know: the side of the patches that `bool_masked_pos` or `noise` counts, and of
    the squares that are hidden as one, in pixels; and how many of those."""
    units = (config.image_size // unit) ** 2
    seen = int(units * (1 - (MASK_RATIO if ratio is None else ratio)))
    return {
        "patch_size": patch,
        "mask_unit": unit,
        "masked_units": units - seen,
        "norm_pix_loss": int(norm_pix_loss),
    }


class OfPixelsAndMask(torch.nn.Module):
    """What a model makes of pictures whose hidden patches it does not see."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 and (B, patches) bool to (B, 3, H, W) float32."""
        made: torch.Tensor = self.model(pixel_values=pixel_values, bool_masked_pos=bool_masked_pos).reconstruction
        return made


class MaskedImages(FixedSizeImages):
    """Models that take `bool_masked_pos` (B, patches) and make `reconstruction` (B, 3, H, W), in normalised pixels."""

    inputs: tuple[str, ...] = ("pixel_values", "bool_masked_pos")
    output = "reconstruction"
    batch_sizes = (1, 3, 8)

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return OfPixelsAndMask(model)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        axes: Axes = {name: {0: "batch"} for name in self.inputs}
        return self._example(config, 2, torch.Generator().manual_seed(0)), axes

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """As for other models, with the form of the mask."""
        settings = super().write_preprocessor(checkpoint, config, folder)
        if config.encoder_stride % config.patch_size:
            raise BadConfiguration(
                f"{checkpoint}: encoder_stride {config.encoder_stride} is not a multiple of "
                f"patch_size {config.patch_size}"
            )
        ratio = getattr(config, "mask_ratio", None)
        return settings | mask_settings(
            config, patch=config.patch_size, unit=config.encoder_stride, ratio=ratio, norm_pix_loss=False
        )

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        made: torch.Tensor = model(**inputs).reconstruction
        return made

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels and masks in every batch size."""
        generator = torch.Generator().manual_seed(0)
        side = config.image_size
        return {f"{size} x {side} x {side}": self._example(config, size, generator) for size in self.batch_sizes}

    def _example(self, config: Any, count: int, generator: torch.Generator) -> Tensors:
        patches = (config.image_size // config.patch_size) ** 2
        return {
            "pixel_values": random_pixels(config, count, generator),
            "bool_masked_pos": torch.rand(count, patches, generator=generator) < 0.5,
        }
