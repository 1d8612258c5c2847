"""BERT (Devlin et al., 2018): normalisation after each half of a layer."""

from tfbatch_export.families._embedding import TextEmbedding
from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import TextFamily


class Bert(Encoder, TextFamily):
    """Absolute positions, token types."""


class EmbeddingBert(Encoder, TextEmbedding):
    """The same without a head (Sentence-BERT, Reimers and Gurevych, 2019)."""


TASKS = {"text-classification": Bert(), "feature-extraction": EmbeddingBert()}
