"""ViT-MAE (He et al., 2021): an encoder that sees only the visible patches, a decoder that makes the rest."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._image import FixedSizeImages, random_pixels
from tfbatch_export.families._masked import mask_settings


class Reconstruction(torch.nn.Module):
    """The model with its mask as inputs.

    `forward` of the Hub's model fixes how many patches are seen when it is traced. Here that is the
    length of `visible`, so one graph serves every ratio and every mask.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32, (B, patches) float32 and (1 + seen,) int64 to (B, 3, H, W) float32.

        Patches are ranked by their noise; `visible` is 0, the class token, then 1 to the number of
        patches seen. What comes out is in the space the model was trained in, which is normalised
        patch by patch with `norm_pix_loss`.
        """
        embeddings = self.model.vit.embeddings
        positions = embeddings.position_embeddings
        patches = embeddings.patch_embeddings(pixel_values) + positions[:, 1:]
        first = (embeddings.cls_token + positions[:, :1]).expand(patches.shape[0], -1, -1)  # len() would fix the batch
        by_rank = torch.argsort(noise, dim=1)
        seen = torch.nn.functional.pad(by_rank + 1, (1, 0)).index_select(1, visible)
        tokens = torch.cat((first, patches), 1)
        hidden = torch.gather(tokens, 1, seen.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
        for layer in self.model.vit.layers:
            hidden = layer(hidden)
        made = self.model.decoder(self.model.vit.layernorm(hidden), torch.argsort(by_rank, dim=1))
        pixels: torch.Tensor = self.model.unpatchify(made.logits)
        return pixels


class VitMae(FixedSizeImages):
    """Both halves are plain encoders: all of their layers are fused."""

    inputs: tuple[str, ...] = ("pixel_values", "noise", "visible")
    output = "reconstruction"
    hub_class = "AutoModelForPreTraining"

    def layers(self, config: Any) -> int:
        return int(config.num_hidden_layers + config.decoder_num_hidden_layers)

    def expected(self, config: Any) -> dict[str, int]:
        """One Attention, two LayerNormalization, one BiasGelu a layer; one more ends each half."""
        layers = self.layers(config)
        return {
            "Attention": layers,
            "BiasGelu": layers if config.hidden_act == "gelu" else 0,
            "LayerNormalization": 2 * layers + 2,
            "Softmax": 0,
        }

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return Reconstruction(model)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        axes: Axes = {"pixel_values": {0: "batch"}, "noise": {0: "batch"}, "visible": {0: "visible"}}
        return example(config, 2, config.mask_ratio, torch.Generator().manual_seed(0)), axes

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """As for other models, with the form of the mask."""
        settings = super().write_preprocessor(checkpoint, config, folder)
        side = config.patch_size
        return settings | mask_settings(
            config, patch=side, unit=side, ratio=config.mask_ratio, norm_pix_loss=config.norm_pix_loss
        )

    def reference(self, model: Any, inputs: Tensors) -> torch.Tensor:
        """The Hub's forward, with the ratio that leaves as many patches as `visible` names."""
        patches, seen = inputs["noise"].shape[1], len(inputs["visible"]) - 1
        ratio = model.config.mask_ratio
        model.config.mask_ratio = 1 - (seen + 0.5) / patches
        try:
            logits = model(pixel_values=inputs["pixel_values"], noise=inputs["noise"]).logits
        finally:
            model.config.mask_ratio = ratio
        pixels: torch.Tensor = model.unpatchify(logits)
        return pixels

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels in every batch size, with the model's own ratio hidden and with half."""
        generator = torch.Generator().manual_seed(0)
        side = config.image_size
        return {
            f"{size} x {side} x {side}, {ratio:.0%} hidden": example(config, size, ratio, generator)
            for size in (1, 3, 8)
            for ratio in dict.fromkeys((config.mask_ratio, 0.5))
        }


def example(config: Any, count: int, ratio: float, generator: torch.Generator) -> Tensors:
    """Random pixels and noise."""
    patches = (config.image_size // config.patch_size) ** 2
    return {
        "pixel_values": random_pixels(config, count, generator),
        "noise": torch.rand(count, patches, generator=generator),
        "visible": torch.arange(1 + int(patches * (1 - ratio))),
    }


TASKS = {"masked-im": VitMae()}
