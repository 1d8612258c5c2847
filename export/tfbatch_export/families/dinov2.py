"""DINOv2 (Oquab et al., 2023): a ViT that learnt without labels, its positions interpolated to any size of picture."""

from tfbatch_export.families._dinov2 import Dinov2Encoder
from tfbatch_export.families._image import ImageClassifier
from tfbatch_export.families._image_embedding import ImageEmbedding


class Dinov2(Dinov2Encoder, ImageClassifier):
    """Logits from the class token and the mean of the patches."""


class EmbeddingDinov2(Dinov2Encoder, ImageEmbedding):
    """The state of the class token, or the mean of those of the patches."""


TASKS = {"image-classification": Dinov2(), "image-feature-extraction": EmbeddingDinov2()}
