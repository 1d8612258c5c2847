"""One label for each picture, of labels that are said at run (CLIP, Radford et al., 2021)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Feeds, Indices, Window, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.labels import Labels
from tfbatch.predictions.scores import SCORE_OPTIONS, Scores, score_columns
from tfbatch.results import Floats
from tfbatch.tasks._pictures import SeeingTask


class ZeroShotImageClassification(SeeingTask):
    """Logits of each picture over the labels, whose embeddings are an input of every batch.

    Scores are a softmax over the labels, or a sigmoid for each where the model was trained so.
    """

    options: ClassVar[tuple[str, ...]] = ("labels", "label_template", *SCORE_OPTIONS, "exact_decoding")

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        self._labels = Labels(bundle, config)
        self._scores = Scores(
            self._labels.names, "sigmoid" if bundle.setting("independent_labels") else "softmax", config
        )

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def prepare(self, window: Window) -> Work:
        work = super().prepare(window)

        def collate(inputs: Indices, length: int) -> Feeds:
            return {**work.collate(inputs, length), "text_embeds": self._labels.embeddings()}

        return replace(work, collate=collate)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._scores.finish(results)


TASK = ZeroShotImageClassification
