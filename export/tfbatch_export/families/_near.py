"""Attention that in some layers reaches near tokens alone, as one fused operator.

Traced without a mask a layer would see all of a text; with transformers' own mask, of four dimensions,
it would not be fused. What is traced here is onnxruntime's MultiHeadAttention, which takes the length
of each row, and in the layers that see near tokens a bias that shuts out the others.
"""

from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tfbatch_export.families._windows import attend

NEAR = "near"
SHUT_OUT = -10_000.0  # what the operator itself adds to the scores of padding; float16 holds it


def row_lengths(*, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
    """In place of a mask: of one (B, L) that is right-padded the tokens of each row, (B,) int32."""
    return attention_mask.to(torch.int32).sum(1, dtype=torch.int32)


def near_bias(length: int, window: int, device: torch.device) -> torch.Tensor:
    """(1, 1, L, L) float32: zero where two places are fewer than `window` apart."""
    places = torch.arange(length, device=device)
    is_near = (places[:, None] - places).abs() < window
    return torch.where(is_near, 0.0, SHUT_OUT)[None, None]


def near_attention(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    sliding_window: int | None = None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for an attention of (B, heads, L, D), whose mask here is row lengths."""
    bias = None if sliding_window is None else near_bias(query.shape[2], sliding_window, query.device)
    return attend((query, key, value), bias, attention_mask, scaling), None


ALL_ATTENTION_FUNCTIONS.register(NEAR, near_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NEAR, row_lengths)
