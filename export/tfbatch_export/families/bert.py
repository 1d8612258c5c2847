"""BERT (Devlin et al., 2018): normalisation after each half of a layer."""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import TextFamily


class Bert(Encoder, TextFamily):
    """Absolute positions, token types."""


TASKS = {"text-classification": Bert()}
