"""One label for each text: sentiment, topic, intent."""

from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Floats, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.scores import Scores, score_columns
from tfbatch.text import TextInput


class TextClassification:
    kind: ClassVar[str] = "text"
    default_model: ClassVar[str] = "sentiment"
    window_rows: ClassVar[int] = 2048  # enough to find rows of like length among
    window_bytes: ClassVar[int] = 4 << 20
    prepares_in_parallel: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        self._input = TextInput(bundle, config.max_length)
        self._scores = Scores(bundle, config)
        self.output_shape = (len(self._scores.labels),)

    @staticmethod
    def columns(config: RunConfig) -> pa.Schema:
        return score_columns(config)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        return self._input.prepare(cells)

    def finish(self, outputs: Floats) -> list[pa.Array]:
        return self._scores.finish(outputs)


TASK = TextClassification
