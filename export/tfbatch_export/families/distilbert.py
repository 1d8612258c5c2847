"""DistilBERT (Sanh et al., 2019): BERT with half of the layers, and without token types."""

from typing import Any

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import AbsolutePositions, text_tasks


class Distilbert(Encoder, AbsolutePositions):
    """Its configuration has names of its own; transformers knows all but the activation's by BERT's."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def activation(self, config: Any) -> str:
        return str(config.activation)


TASKS = text_tasks(Distilbert())
