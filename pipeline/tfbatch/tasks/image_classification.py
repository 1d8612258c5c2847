"""One label for each picture."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.scores import SCORE_OPTIONS, Scores, score_columns
from tfbatch.results import Floats
from tfbatch.tasks._pictures import SeeingTask


class ImageClassification(SeeingTask):
    default_model: ClassVar[str] = "fashion"
    options: ClassVar[tuple[str, ...]] = (*SCORE_OPTIONS, "exact_decoding")

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        self._scores = Scores.of(bundle, config)

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._scores.finish(results)


TASK = ImageClassification
