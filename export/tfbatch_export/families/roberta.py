"""RoBERTa (Liu et al., 2019): BERT without token types, its positions counted from the padding token's on."""

from typing import Any

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import AbsolutePositions, text_tasks


class Roberta(Encoder, AbsolutePositions):
    """Position embeddings up to the padding token's id are of no token: of 514 there are 512 to be had.

    The model counts a token's position by its id not being the padding token's, in the graph too.
    """

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def longest(self, config: Any) -> int:
        return int(config.max_position_embeddings - config.pad_token_id - 1)


TASKS = text_tasks(Roberta())
