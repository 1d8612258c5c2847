"""Swin (Liu et al., 2021) trained by SimMIM (Xie et al., 2021): attention in windows, four stages."""

from typing import Any

from tfbatch_export.families._masked import MaskedImages
from tfbatch_export.families._windows import WINDOWED


class MaskedSwin(MaskedImages):
    """A layer is one MultiHeadAttention with `attention_bias`, and as a ViT's otherwise.

    Besides those of the layers there is a LayerNormalization for each merging of patches, between
    two stages, one of the patch embedding and one at the end.
    """

    attention: str | None = WINDOWED

    def layers(self, config: Any) -> int:
        return sum(config.depths)

    def expected(self, config: Any) -> dict[str, int]:
        layers, stages = self.layers(config), len(config.depths)
        return {
            "MultiHeadAttention": layers,
            "BiasGelu": layers if config.hidden_act == "gelu" else 0,
            "LayerNormalization": 2 * layers + stages + 1,
            "Softmax": 0,
        }


TASKS = {"masked-im": MaskedSwin()}
