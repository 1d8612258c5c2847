"""DeiT (Touvron et al., 2020): a ViT with a second token, the distillation token."""

from typing import Any

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import ImageClassifier
from tfbatch_export.families._image_embedding import ImageEmbedding
from tfbatch_export.families._masked import MaskedImages


class TwoTokens:
    """The class token and the distillation token stand before the patches."""

    def leading_tokens(self, _: Any) -> int:
        return 2


class Deit(TwoTokens, Encoder, ImageClassifier):
    """Logits from the class token, or from both tokens where the checkpoint was distilled."""


class EmbeddingDeit(TwoTokens, Encoder, ImageEmbedding):
    """The state of the class token, or the mean of those of the patches."""


class MaskedDeit(TwoTokens, Encoder, MaskedImages):
    """Pixels from patches, as for ViT."""


TASKS = {"image-classification": Deit(), "image-feature-extraction": EmbeddingDeit(), "masked-im": MaskedDeit()}
