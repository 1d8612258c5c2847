"""ViT (Dosovitskiy et al., 2020): normalisation before each half of a layer."""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import ImageClassifier
from tfbatch_export.families._image_embedding import ImageEmbedding
from tfbatch_export.families._masked import MaskedImages


class Vit(Encoder, ImageClassifier):
    """Square patches behind one class token."""


class EmbeddingVit(Encoder, ImageEmbedding):
    """The same without a head."""


class MaskedVit(Encoder, MaskedImages):
    """The same with a mask token and a convolution that makes pixels of patches (SimMIM, Xie et al., 2021)."""


TASKS = {"image-classification": Vit(), "image-feature-extraction": EmbeddingVit(), "masked-im": MaskedVit()}
