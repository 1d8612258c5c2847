"""ELECTRA (Clark et al., 2020): BERT's layers, trained to tell replaced tokens.

Embeddings may be narrower than the layers. The generator fills masks; the discriminator is what is
fine-tuned for all else.
"""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import AbsolutePositions, text_tasks


class Electra(Encoder, AbsolutePositions):
    """Token types besides positions."""


TASKS = text_tasks(Electra())
