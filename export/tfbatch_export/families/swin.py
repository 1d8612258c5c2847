"""Swin (Liu et al., 2021): attention in windows, four stages; trained by SimMIM (Xie et al., 2021) to make pixels."""

from typing import Any

from tfbatch_export.families._image import FixedSizeImages, ImageClassifier
from tfbatch_export.families._image_embedding import ImageEmbedding
from tfbatch_export.families._masked import MaskedImages
from tfbatch_export.families._windows import WINDOWED


class Windows(FixedSizeImages):
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

    def leading_tokens(self, _: Any) -> int:
        return 0


class Swin(Windows, ImageClassifier):
    """Logits from the mean of the last stage's patches."""


class EmbeddingSwin(Windows, ImageEmbedding):
    """The mean of the last stage's patches; there is no class token."""

    modes: tuple[str, ...] = ("mean",)

    def mode_of(self, _: Any) -> str:
        return "mean"


class MaskedSwin(Windows, MaskedImages):
    """Pixels from the last stage's patches."""


TASKS = {"image-classification": Swin(), "image-feature-extraction": EmbeddingSwin(), "masked-im": MaskedSwin()}
