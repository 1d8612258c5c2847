"""CLIP (Radford et al., 2021): a ViT for pictures, a decoder's layers for texts."""

from typing import Any

import onnx_ir
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._labelled_pictures import LabelledPictures
from tfbatch_export.families._towers import PictureTower, TextTower
from tfbatch_export.rewrites.masks import look_back_only
from tfbatch_export.trace import no_mask

UNORDERED = "sdpa_unordered"


def unordered_attention(*inputs: Any, **settings: Any) -> Any:
    """`sdpa` as if every token saw all: the fused operator is told of the order afterwards."""
    return sdpa_attention_forward(*inputs, **{**settings, "is_causal": False})


ALL_ATTENTION_FUNCTIONS.register(UNORDERED, unordered_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(UNORDERED, no_mask)


def end_of_text(config: Any) -> int:
    """The token whose state is the text's.

    The first configurations have 2 there, which is another one: the Hub's model then takes the
    largest token of all.
    """
    return int(config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id)


class ClipPictures(PictureTower):
    """A ViT with one more normalisation, before its layers."""

    def expected(self, config: Any) -> dict[str, int]:
        fused = super().expected(config)
        return fused | {"LayerNormalization": fused["LayerNormalization"] + 1}


class ClipTexts(TextTower):
    """Tokens see those before them, so that padding, which comes after the end of the text, changes nothing."""

    attention: str | None = UNORDERED

    def complete(self, graph: onnx_ir.Model) -> None:
        look_back_only(graph)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        inputs, axes = super().trace_inputs(config)
        inputs["input_ids"][:, -1] = end_of_text(config.text_config)
        return inputs, axes

    def as_the_hub_has_them(self, model: Any, ids: torch.Tensor) -> Tensors:
        """With a mask up to the end of each text, as the tokenizer gives it."""
        end = ids.eq(end_of_text(model.config.text_config)).int().argmax(1, keepdim=True)
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) <= end).long()}

    def examples(self, config: Any, size: int, length: int, generator: torch.Generator) -> Tensors:
        """Unpadded, and with ends at random places, after which come tokens of any kind."""
        end = end_of_text(config)
        ids = torch.randint(config.vocab_size - 1, (size, length), generator=generator)
        ids += ids >= end
        lengths = torch.randint(1, length + 1, (size, 1), generator=generator)
        return {
            "": ids.scatter(1, torch.full_like(lengths, length - 1), end),
            ", padded": ids.scatter(1, lengths - 1, end),
        }


class Clip(ClipPictures, LabelledPictures):
    """A softmax over the labels."""

    independent = False


TASKS = {
    "zero-shot-image-classification": Clip(ClipTexts(is_side=True)),
    "image-feature-extraction": ClipPictures(),
    "feature-extraction": ClipTexts(),
}
