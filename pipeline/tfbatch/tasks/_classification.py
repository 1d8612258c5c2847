"""What classifications have in common: logits over the labels become a label and its scores."""

from typing import Protocol

import pyarrow as pa

from tfbatch.batches import Floats, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.scores import Scores, score_columns


class Input(Protocol):
    """Turns the input column into model inputs."""

    def prepare(self, cells: pa.ChunkedArray) -> Work: ...


class Classification:
    """A task with the columns of `Scores`, whatever its input is."""

    def __init__(self, bundle: Bundle, config: RunConfig, source: Input) -> None:
        self._input = source
        self._scores = Scores(bundle, config)
        self.output_shape = (len(self._scores.labels),)

    @staticmethod
    def columns(config: RunConfig) -> pa.Schema:
        return score_columns(config)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        return self._input.prepare(cells)

    def finish(self, outputs: Floats) -> list[pa.Array]:
        return self._scores.finish(outputs)
