"""DINOv3 (Siméoni et al., 2025): a ViT with registers, whose positions turn the queries and keys of patches."""

from typing import Any

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image_embedding import ImageEmbedding
from tfbatch_export.families._resizable import ResizableImages


class EmbeddingDinov3(ResizableImages, Encoder, ImageEmbedding):
    """A layer is one MultiHeadAttention: what is turned has been projected before, so that Attention,
    which projects by itself, is not it. A gated feed-forward half has no fused operator.
    """

    def expected(self, config: Any) -> dict[str, int]:
        attention = {"MultiHeadAttention": self.layers(config)}
        others = {name: count for name, count in super().expected(config).items() if name != "Attention"}
        has_bias = config.hidden_act == "gelu" and config.mlp_bias
        return attention | others | {"BiasGelu": self.layers(config) if has_bias else 0}

    def leading_tokens(self, config: Any) -> int:
        return 1 + int(config.num_register_tokens)


TASKS = {"image-feature-extraction": EmbeddingDinov3()}
