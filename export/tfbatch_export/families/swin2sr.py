"""Swin2SR (Conde et al., 2022): super-resolution of pictures of any size, attention in shifted windows."""

import copy
import math
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.preprocessor import copy_preprocessor, steps
from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._image import OfPixels
from tfbatch_export.families._windows import multi_head_attention

PROCESSED = {"do_rescale", "do_pad"}
SIZES = ((1, 64, 64), (3, 8, 8), (8, 16, 40), (1, 72, 136), (3, 96, 32))  # pictures, height, width


class CosineAttention(torch.nn.Module):
    """A layer's attention as one MultiHeadAttention.

    Queries and keys have length one, and a learnt factor a head in place of the usual scale; the
    bias is made by a small network of the places in a window, which do not change.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads, self.width = attention.num_attention_heads, attention.attention_head_size
        with torch.no_grad():
            table = attention.continuous_position_bias_mlp(attention.relative_coords_table).view(-1, self.heads)
            places = math.prod(attention.window_size)
            bias = table[attention.relative_position_index.view(-1)].view(places, places, self.heads)
            self.bias = torch.nn.Buffer(16 * torch.sigmoid(bias.permute(2, 0, 1).unsqueeze(0)))
            scale = torch.clamp(attention.logit_scale, max=math.log(1 / 0.01)).exp()
            self.scale = torch.nn.Buffer(scale.view(1, 1, self.heads, 1))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, _: bool | None = False
    ) -> tuple[torch.Tensor]:
        """(windows, places, C) and a mask (windows of a picture, places, places) or none to (windows, places, C)."""
        query = (self.unit(self.query(hidden_states)) * self.scale).flatten(2)
        key = self.unit(self.key(hidden_states)).flatten(2)
        bias: torch.Tensor = self.bias
        if attention_mask is not None:  # the Hub's model adds its mask twice
            pictures = hidden_states.shape[0] // attention_mask.shape[0]
            bias = (bias + 2 * attention_mask.unsqueeze(1)).repeat(pictures, 1, 1, 1)
        value = self.value(hidden_states)
        return (multi_head_attention(query, key, value, bias, heads=self.heads, scale=1.0),)

    def unit(self, projected: torch.Tensor) -> torch.Tensor:
        """(windows, places, C) to (windows, places, heads, C / heads) of length one."""
        heads = projected.view(projected.shape[0], -1, self.heads, self.width)
        return torch.nn.functional.normalize(heads, dim=-1)


class Swin2Sr:
    """Any size in multiples of the window.

    Normalisation comes after each half of a layer and before its residual; what is fused is the
    attention and the GELU.
    """

    inputs: tuple[str, ...] = ("pixel_values",)
    output = "reconstruction"
    attention: str | None = None
    further_outputs: tuple[str, ...] = ()
    hub_class: str | None = None
    unused: tuple[str, ...] = ()
    is_inferred = True

    def layers(self, config: Any) -> int:
        return sum(config.depths)

    def expected(self, config: Any) -> dict[str, int]:
        layers = self.layers(config)
        return {
            "MultiHeadAttention": layers,
            "BiasGelu": layers if config.hidden_act == "gelu" else 0,
            "Softmax": 0,
        }

    def labels(self, _: Any) -> list[str]:
        return []

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        traced: Any = copy.deepcopy(model)
        for stage in traced.swin2sr.encoder.stages:
            for layer in stage.layers:
                layer.attention.self = CosineAttention(layer.attention.self)
        return OfPixels(traced, self.output)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        side = config.window_size
        pixels = torch.rand(2, config.num_channels, 9 * side, 11 * side)
        return {"pixel_values": pixels}, {"pixel_values": {0: "batch", 2: f"{side}*rows", 3: f"{side}*columns"}}

    def complete(self, graph: onnx_ir.Model) -> None:
        """The mask of shifted windows is in the graph."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """`preprocessor_config.json`, held to the steps that the run stage takes."""
        settings = copy_preprocessor(checkpoint, folder)
        multiple = int(settings.get("size_divisor") or settings.get("pad_size") or 8)
        unknown = [name for name in steps(settings) if name not in PROCESSED]
        if unknown or not (settings.get("do_pad") and settings.get("do_rescale")) or multiple % config.window_size:
            raise BadConfiguration(
                f"{checkpoint}: the image processor does {', '.join(steps(settings)) or 'nothing'} and pads to "
                f"multiples of {multiple}; what can be run is do_rescale and do_pad to whole windows of "
                f"{config.window_size}"
            )
        if (config.num_channels, config.num_channels_out) != (3, 3):
            raise BadConfiguration(f"{checkpoint} reads {config.num_channels} channels; pictures are given as RGB")
        if not config.upsampler and config.upscale != 1:
            raise BadConfiguration(
                f"{checkpoint} has upscale {config.upscale} and no upsampler, with which the model gives pictures of "
                f"their own size; put upscale 1 into config.json"
            )
        return {"scale": config.upscale, "multiple": multiple}

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        made: torch.Tensor = model(**inputs).reconstruction
        return made

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random pixels in five sizes and three batch sizes."""
        generator = torch.Generator().manual_seed(0)
        batches = {}
        for count, *sides in SIZES:
            height, width = (-(-side // config.window_size) * config.window_size for side in sides)
            pixels = torch.rand(count, config.num_channels, height, width, generator=generator)
            batches[f"{count} x {height} x {width}"] = {"pixel_values": pixels}
        return batches


TASKS = {"image-to-image": Swin2Sr()}
