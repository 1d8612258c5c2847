"""One label for each text or pair of texts: sentiment, topic, intent, entailment; or several; or a number."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.scores import SCORE_OPTIONS, Scores, score_columns
from tfbatch.tasks._text import TEXT_OPTIONS, TextTask
from tfbatch.text.model_inputs import sum_windows


class TextClassification(TextTask):
    default_model: ClassVar[str | None] = "sentiment"
    options: ClassVar[tuple[str, ...]] = (*TEXT_OPTIONS, *SCORE_OPTIONS)

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        self._scores = Scores.of(bundle, config)

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        """Logits (labels,) of each text; of one in windows, their mean."""
        return self._scores.finish(sum_windows(results))


TASK = TextClassification
