"""DeiT (Touvron et al., 2020): a ViT with a second token, the distillation token."""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import ImageClassifier
from tfbatch_export.families._masked import MaskedImages


class Deit(Encoder, ImageClassifier):
    """Logits from the class token, or from both tokens where the checkpoint was distilled."""


class MaskedDeit(Encoder, MaskedImages):
    """Pixels from patches, as for ViT."""


TASKS = {"image-classification": Deit(), "masked-im": MaskedDeit()}
