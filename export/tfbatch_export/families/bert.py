"""BERT (Devlin et al., 2018): normalisation after each half of a layer."""

from typing import Any

from tfbatch_export.families._text import TextFamily


class Bert(TextFamily):
    """Every layer is one Attention, two SkipLayerNormalization and, with GELU, one BiasGelu; the
    LayerNormalization is that of the embeddings."""

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


FAMILY = Bert()
