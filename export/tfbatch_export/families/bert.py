"""BERT (Devlin et al., 2018): normalisation after each half of a layer."""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import AbsolutePositions, text_tasks


class Bert(Encoder, AbsolutePositions):
    """Token types besides positions."""


TASKS = text_tasks(Bert())
