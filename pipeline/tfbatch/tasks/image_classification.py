"""One label for each picture."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pixels import ImageInput
from tfbatch.results import Floats
from tfbatch.scores import SCORE_OPTIONS, Scores, score_columns


class ImageClassification:
    kind: ClassVar[str] = "image"
    side_columns: ClassVar[dict[str, str]] = {}
    default_model: ClassVar[str] = "fashion"
    options: ClassVar[tuple[str, ...]] = (*SCORE_OPTIONS, "exact_decoding")
    window_rows: ClassVar[int] = 64  # decoded pictures are large: 38 MB at 448 x 448
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._input = ImageInput(bundle, is_exact=config.exact_decoding)
        self._scores = Scores.of(bundle, config)

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def weigh(self, window: Window) -> Indices:
        """The picture, and what the model sees of it."""
        return evenly(window) + self._input.weight

    def prepare(self, window: Window) -> Work:
        return self._input.prepare(window.rows.column(self._column))

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._scores.finish(results)


TASK = ImageClassification
