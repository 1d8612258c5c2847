"""DeBERTa v2 and v3 (He et al., 2021): what a token says and where it stands are apart in the scores.

A score is the sum of three products: of a query and a key, of the query and a key that stands for the
distance (content to position, `c2p`), and of the key and a query that stands for it (`p2c`). The first
is the fused operator's own; the others are its bias.
"""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from tfbatch_export.families._near import row_lengths
from tfbatch_export.families._relative import RelativePositions
from tfbatch_export.families._text import text_tasks
from tfbatch_export.families._windows import multi_head_attention


class Distances(torch.nn.Module):
    """The bucket of each distance, `buckets` (2 x longest + 1,), looked up for a length at hand."""

    buckets: torch.Tensor

    def __init__(self, encoder: Any, longest: int) -> None:
        super().__init__()
        self.longest = longest
        buckets = torch.arange(-longest, longest + 1)
        span = encoder.rel_embeddings.num_embeddings // 2
        if encoder.position_buckets > 0:
            buckets = make_log_bucket_position(buckets, encoder.position_buckets, encoder.max_relative_positions).long()
        self.register_buffer("buckets", (buckets + span).clamp(0, 2 * span - 1))

    def forward(self, states: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """For states (B, L, C) the buckets (2L,) of distances L - 1 to -L, and of 1 - L to L."""
        length = states.shape[1]
        steps = torch.arange(2 * length, device=states.device) - (length - 1)
        return self.buckets.index_select(0, self.longest - steps), self.buckets.index_select(0, self.longest + steps)


class DisentangledAttention(torch.nn.Module):
    """A layer's attention as one MultiHeadAttention.

    The keys and queries that stand for distances, `place_key` and `place_query` (heads, D, buckets), are
    the same for all texts: they are projected and scaled once, here.
    """

    place_key: torch.Tensor | None
    place_query: torch.Tensor | None

    def __init__(self, attention: Any, embeddings: torch.Tensor | None) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query_proj, attention.key_proj, attention.value_proj
        self.heads, self.width = attention.num_attention_heads, attention.attention_head_size
        terms = {"c2p", "p2c"} & set(attention.pos_att_type)
        self.scale: float = (self.width * (1 + len(terms))) ** -0.5
        kind = "" if attention.share_att_key else "pos_"
        for term, role in (("c2p", "key"), ("p2c", "query")):
            is_there = embeddings is not None and term in terms
            made = self.by_head(getattr(attention, f"{kind}{role}_proj")(embeddings)) if is_there else None
            self.register_buffer(f"place_{role}", made)

    def by_head(self, projected: torch.Tensor) -> torch.Tensor:
        """Buckets (buckets, heads x D) to (heads, D, buckets), scaled."""
        heads = projected.detach().view(-1, self.heads, self.width)
        return (heads.permute(1, 2, 0) * self.scale).contiguous()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        *_: Any,
        relative_pos: tuple[torch.Tensor, torch.Tensor] | None = None,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        """(B, L, C), row lengths (B,) and buckets of distances to (B, L, C)."""
        query, key, value = self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)
        bias = None if relative_pos is None else self.bias(query, key, *relative_pos)
        made = multi_head_attention(query, key, value, bias, attention_mask, heads=self.heads, scale=self.scale)
        return made, None

    def bias(
        self, query: torch.Tensor, key: torch.Tensor, falling: torch.Tensor, rising: torch.Tensor
    ) -> torch.Tensor | None:
        """What distances add to the scores (B, heads, L, L) of queries and keys (B, L, C), if anything;
        for the buckets see `Distances`."""
        terms = []
        if self.place_key is not None:
            terms.append(by_place(self.split(query) @ self.place_key.index_select(2, falling)))
        if self.place_query is not None:
            by_key = by_place(self.split(key) @ self.place_query.index_select(2, rising))
            terms.append(by_key.transpose(-1, -2))
        return sum(terms[1:], terms[0]) if terms else None

    def split(self, projected: torch.Tensor) -> torch.Tensor:
        """(B, L, C) to (B, heads, L, D)."""
        return projected.view(*projected.shape[:2], self.heads, self.width).transpose(1, 2)


def by_place(scores: torch.Tensor) -> torch.Tensor:
    """Scores (B, heads, L, 2L) by step, the token's own being number L - 1, to (B, heads, L, L) by place.

    Row i is wanted from column L - 1 - i on. Laid end to end these beginnings are 2L - 1 apart, so as
    rows of one column less they stand in one column (Transformer-XL, Dai et al., 2019).
    """
    batch, heads, length, _ = scores.shape
    flat = scores.flatten(-2).narrow(-1, length - 1, length * (2 * length - 1))
    return flat.view(batch, heads, length, 2 * length - 1)[..., :length]


class DebertaV2(RelativePositions):
    """The second version's largest have a convolution beside the first layer, which ends in one
    LayerNormalization more."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")

    def expected(self, config: Any) -> dict[str, int]:
        plain = super().expected(config)
        plain["LayerNormalization"] += getattr(config, "conv_kernel_size", 0) > 0
        return plain

    def longest(self, config: Any) -> int:
        return int(config.max_position_embeddings)

    def rewire(self, model: PreTrainedModel) -> PreTrainedModel:
        """The Hub's encoder asks for the distances once and hands them to every layer."""
        traced: Any = copy.deepcopy(model)
        encoder = traced.base_model.encoder
        encoder.get_attention_mask = lambda mask: row_lengths(attention_mask=mask)
        embeddings = encoder.get_rel_embedding()
        if embeddings is not None:
            encoder.distances = Distances(encoder, self.longest(model.config))
            encoder.get_rel_pos = encoder.distances.forward
        for layer in encoder.layer:
            layer.attention.self = DisentangledAttention(layer.attention.self, embeddings)
        rewired: PreTrainedModel = traced
        return rewired


TASKS = text_tasks(DebertaV2())
