"""SigLIP (Zhai et al., 2023): two encoders, trained so that each label is scored by itself."""

import copy
from pathlib import Path
from typing import Any

import torch
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tfbatch_export.checkpoints.files import loading
from tfbatch_export.families import Tensors
from tfbatch_export.families._labelled_pictures import LabelledPictures
from tfbatch_export.families._towers import ACTIVATIONS, PictureTower, TextTower
from tfbatch_export.families._windows import multi_head_attention

LENGTH = 64  # tokens that the Hub's pipeline pads texts to, which some have no positions for


class ProbingAttention(torch.nn.Module):
    """The attention of one learnt query on all patches, which pools them, as one MultiHeadAttention.

    PyTorch's own module takes its projections from one matrix in a way that no rewriting rule knows,
    and that onnxscript turns into a FusedMatMul that onnxruntime refuses.
    """

    def __init__(self, attention: torch.nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.query, self.key, self.value = (
            linear(weight, bias)
            for weight, bias in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        )
        self.output = attention.out_proj

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor]:
        """(B, 1, D) and twice (B, patches, D) to (B, 1, D)."""
        scale = (query.shape[2] // self.heads) ** -0.5
        projected = self.query(query), self.key(key), self.value(value)
        return (self.output(multi_head_attention(*projected, None, heads=self.heads, scale=scale)),)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    """A projection of its own weights (out, in) and biases (out,)."""
    made = torch.nn.Linear(weight.shape[1], weight.shape[0])
    made.weight, made.bias = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())
    return made


class SiglipPictures(PictureTower):
    """A ViT without a class token: patches are pooled by an attention and a feed-forward half."""

    def expected(self, config: Any) -> dict[str, int]:
        """A layer's operators, and once more those of the pooling."""
        fused = super().expected(config)
        pooling = {"LayerNormalization", ACTIVATIONS.get(config.vision_config.hidden_act)}
        return {name: count + (name in pooling) for name, count in fused.items()} | {"MultiHeadAttention": 1}

    def seeing(self, model: Any) -> torch.nn.Module:
        tower: torch.nn.Module = copy.deepcopy(model.vision_model)
        pooling: Any = tower.head
        pooling.attention = ProbingAttention(pooling.attention)
        return tower

    def width(self, config: Any) -> int:
        return int(config.vision_config.hidden_size)


class SiglipTexts(TextTower):
    """The state of the last of 64 tokens is the text's, padding or not: none of them is masked."""

    def width(self, config: Any) -> int:
        return int(config.text_config.projection_size)

    def padded(self, model: PreTrainedModel) -> tuple[int, int]:
        """With the checkpoint's own padding token, or the configuration's for a model that was not loaded."""
        if model.name_or_path:
            pad = self.read_tokenizer(Path(model.name_or_path)).pad_token_id
        else:
            pad = model.config.text_config.pad_token_id
        return min(LENGTH, model.config.text_config.max_position_embeddings), int(pad)

    def read_tokenizer(self, checkpoint: Path) -> Any:
        """From tokenizer.json: the Hub's class for SigLIP asks for sentencepiece, and would write none.

        Raises:
            BadConfiguration: it has none, or asks for a mask of the padding.
        """
        if not (checkpoint / "tokenizer.json").is_file():
            raise BadConfiguration(f"{checkpoint} has no tokenizer.json, by which texts are tokenized")
        with loading(checkpoint):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
        if "attention_mask" in tokenizer.model_input_names:
            raise BadConfiguration(
                f"{checkpoint}: tokenizer_config.json does not have input_ids alone as model_input_names, so the Hub "
                f"would mask the padding, which SigLIP was trained to see"
            )
        return tokenizer

    def as_the_hub_has_them(self, model: PreTrainedModel, ids: torch.Tensor) -> Tensors:
        length, pad = self.padded(model)
        return {"input_ids": torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=pad)}


class Siglip(SiglipPictures, LabelledPictures):
    """A sigmoid for each label."""

    independent = True

    def bias(self, model: Any) -> torch.Tensor:
        bias: torch.Tensor = model.logit_bias.detach()
        return bias


TASKS = {
    "zero-shot-image-classification": Siglip(SiglipTexts(is_side=True)),
    "image-feature-extraction": SiglipPictures(),
    "feature-extraction": SiglipTexts(),
}
