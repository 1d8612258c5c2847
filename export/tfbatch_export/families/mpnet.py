"""MPNet (Song et al., 2020): BERT without token types, and with a bias for the distance of two tokens,
which is the same in all layers."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.families._relative import ROW_LENGTHS, RelativePositions
from tfbatch_export.families._text import text_tasks
from tfbatch_export.families._windows import multi_head_attention

FIRST_POSITION = 2  # whatever id the configuration gives to the padding token


class BiasedAttention(torch.nn.Module):
    """A layer's attention as one MultiHeadAttention."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = attention.q, attention.k, attention.v, attention.o
        self.heads, self.width = attention.num_attention_heads, attention.attention_head_size

    def forward(self, states: torch.Tensor, lengths: torch.Tensor, bias: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        """(B, L, C), row lengths (B,) and a bias (1, heads, L, L) to (B, L, C)."""
        query, key, value = self.query(states), self.key(states), self.value(states)
        scale = self.width**-0.5
        return (self.output(multi_head_attention(query, key, value, bias, lengths, heads=self.heads, scale=scale)),)


class DistanceBias(torch.nn.Module):
    """The bias of each distance, `table` (heads, 2 x longest + 1), looked up for a length at hand."""

    table: torch.Tensor

    def __init__(self, encoder: Any, longest: int) -> None:
        super().__init__()
        self.longest = longest
        with torch.no_grad():
            buckets = encoder.relative_position_bucket(torch.arange(-longest, longest + 1))
            self.register_buffer("table", encoder.relative_attention_bias(buckets).T.contiguous())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The bias (1, heads, L, L) for states (B, L, C)."""
        length = states.shape[1]  # of a tensor len() would fix it
        places = torch.arange(length, device=states.device)
        distances = (places - places[:, None] + self.longest).flatten()
        return self.table.index_select(1, distances).view(1, -1, length, length)


class Mpnet(RelativePositions):
    """Two of the position embeddings are of no token: of 514 there are 512 to be had."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def longest(self, config: Any) -> int:
        return int(config.max_position_embeddings - FIRST_POSITION)

    def rewire(self, model: PreTrainedModel) -> PreTrainedModel:
        """The Hub's encoder asks for the bias once and hands it to every layer."""
        traced: Any = copy.deepcopy(model)
        traced.config._attn_implementation = ROW_LENGTHS
        encoder = traced.base_model.encoder
        encoder.distances = DistanceBias(encoder, self.longest(model.config))
        encoder.compute_position_bias = encoder.distances.forward
        for layer in encoder.layer:
            layer.attention.attn = BiasedAttention(layer.attention.attn)
        rewired: PreTrainedModel = traced
        return rewired


TASKS = text_tasks(Mpnet())
