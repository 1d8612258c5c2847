"""Attention in windows, as one fused operator.

Swin's attention adds to its scores a bias for each pair of places in a window and, where windows
were shifted round the border, a mask. No rewriting rule of onnxscript knows that form. What is
traced here is onnxruntime's MultiHeadAttention itself, which takes their sum as `attention_bias`.
"""

from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tfbatch_export.trace import no_mask

WINDOWED = "windowed"


def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    lengths: torch.Tensor | None = None,
    *,
    heads: int,
    scale: float,
) -> torch.Tensor:
    """com.microsoft MultiHeadAttention: (B, L, heads x D) float32 three times, a bias (B or 1, heads
    or 1, L, L) and row lengths (B,) int32 to (B, L, heads x D)."""
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (query, key, value, None, lengths, bias),
        {"num_heads": heads, "scale": scale},
        dtype=query.dtype,
        shape=query.shape,
        version=1,
    )


def attend(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    bias: torch.Tensor | None,
    lengths: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """`multi_head_attention` of (B, heads, L, D) three times to (B, L, heads, D), as transformers has them."""
    batch, heads, length, width = parts[0].shape
    query, key, value = (part.transpose(1, 2).reshape(batch, length, heads * width) for part in parts)
    made = multi_head_attention(query, key, value, bias, lengths, heads=heads, scale=scaling)
    return made.view(batch, length, heads, width)


def windowed_attention(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for an attention of (B, heads, L, D), whose mask here is a bias."""
    return attend((query, key, value), attention_mask, None, scaling), None


ALL_ATTENTION_FUNCTIONS.register(WINDOWED, windowed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(WINDOWED, no_mask)
