"""ViT (Dosovitskiy et al., 2020): normalisation before each half of a layer."""

from typing import Any

from tfbatch_export.families._image import ImageFamily


class Vit(ImageFamily):
    """Every layer is one Attention, two SkipLayerNormalization and, with GELU, one BiasGelu; the
    LayerNormalization is the first layer's first, which has nothing to add."""

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


FAMILY = Vit()
