"""BEiT (Bao et al., 2021): a ViT that adds to its scores a bias for each pair of places, a head and a layer."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import FixedSizeImages, ImageClassifier
from tfbatch_export.families._image_embedding import ImageEmbedding
from tfbatch_export.trace import no_mask

BIASED = "sdpa_biased"


def biased_attention(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' `sdpa` does of (B, heads, L, D), the mask being a bias (1, heads, L, L).

    The copy is what can be captured: with a bias the exporter takes the attention apart after it
    has noted how its result lies in memory, which is then otherwise.
    """
    made = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return made.transpose(1, 2).clone(memory_format=torch.contiguous_format), None


ALL_ATTENTION_FUNCTIONS.register(BIASED, biased_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(BIASED, no_mask)


class PlacedBias(torch.nn.Module):
    """A layer's bias in a picture of the model's own size.

    The Hub's module finds the places of all pairs and resizes its table each time it is called.
    """

    def __init__(self, bias: Any) -> None:
        super().__init__()
        self.table = bias.relative_position_bias_table
        places = bias.generate_relative_position_index(bias.window_size)
        self.length = len(places)
        self.places = torch.nn.Buffer(places.flatten())

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        """To (1, heads, L, L), whatever the Hub's module is told of the picture."""
        values = self.table.index_select(0, self.places)
        biases: torch.Tensor = values.view(self.length, self.length, -1).permute(2, 0, 1).unsqueeze(0)
        return biases


class BiasedEncoder(Encoder, FixedSizeImages):
    """The bias becomes the `attention_bias` of the fused Attention.

    Keys have no bias of their own: in the fused one, which is for all three, theirs is zeros.
    """

    attention: str | None = BIASED

    def traced(self, model: PreTrainedModel) -> PreTrainedModel:
        """With the biases looked up alone: pictures are of one size, and so are the tables."""
        placed: Any = copy.deepcopy(model)
        body = placed.base_model
        if body.shared_position_bias is not None:
            body.shared_position_bias = PlacedBias(body.shared_position_bias)
        for layer in body.layers:
            if layer.relative_position_bias is not None:
                layer.relative_position_bias = PlacedBias(layer.relative_position_bias)
        traced: PreTrainedModel = placed
        return traced


class Beit(BiasedEncoder, ImageClassifier):
    """Logits from the mean of the patches, or from the class token where the configuration says so."""


class EmbeddingBeit(BiasedEncoder, ImageEmbedding):
    """What the classifier would see: the normalised mean of the patches, or the class token.

    Models that were trained for the mean have no normalisation of single tokens.
    """

    unused: tuple[str, ...] = ()

    def mode_of(self, config: Any) -> str:
        return self.mode or ("mean" if config.use_mean_pooling else "cls")

    def expected(self, config: Any) -> dict[str, int]:
        """As of other encoders; without the last normalisation where that is the mean's and is not taken."""
        expected = super().expected(config)
        missing = config.use_mean_pooling and self.mode_of(config) == "cls"
        return expected | {"LayerNormalization": expected["LayerNormalization"] - missing}

    def pool(self, model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
        if self.mode_of(model.config) == "mean" and model.config.use_mean_pooling:
            pooler: Any = model.pooler
            pooled: torch.Tensor = pooler(states)
            return pooled
        return super().pool(model, states)


TASKS = {"image-classification": Beit(), "image-feature-extraction": EmbeddingBeit()}
