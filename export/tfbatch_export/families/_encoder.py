"""What the fused graph of a plain transformer encoder is made of."""

from typing import Any


class Encoder:
    """Layers of self-attention and a feed-forward half, each with a normalisation and a residual.

    A fused layer is one Attention, two SkipLayerNormalization and, with GELU, one BiasGelu. One
    LayerNormalization is left, which has nothing to add: that of BERT's embeddings, or the first
    of ViT's first layer. Softmax stands for attention that was not fused.
    """

    def layers(self, config: Any) -> int:
        return int(config.num_hidden_layers)

    def expected(self, config: Any) -> dict[str, int]:
        layers = self.layers(config)
        return {
            "Attention": layers,
            "SkipLayerNormalization": 2 * layers,
            "BiasGelu": layers if config.hidden_act == "gelu" else 0,
            "LayerNormalization": 1,
            "Softmax": 0,
        }
