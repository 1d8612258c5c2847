"""What classifications have in common: logits over the labels become a label and its scores."""

from typing import Protocol

import pyarrow as pa

from tfbatch.batches import Floats, Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.scores import Scores, score_columns


class Input(Protocol):
    """Turns the input column into model inputs."""

    def prepare(self, cells: pa.ChunkedArray) -> Work: ...


class Classification:
    """A task with the columns of `Scores`, whatever its input is."""

    def __init__(self, bundle: Bundle, config: RunConfig, column: str, source: Input) -> None:
        self._column = column
        self._input = source
        self._scores = Scores.of(bundle, config)

    @staticmethod
    def columns(config: RunConfig) -> pa.Schema:
        return score_columns(config)

    def weigh(self, window: Window) -> Indices:
        return evenly(window)

    def prepare(self, window: Window) -> Work:
        return self._input.prepare(window.rows.column(self._column))

    def finish(self, results: list[Floats | None]) -> list[pa.Array]:
        return self._scores.finish(results)
