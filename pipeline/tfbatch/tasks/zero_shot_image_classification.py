"""One label for each picture, of labels that are said at run (CLIP, Radford et al., 2021)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Feeds, Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.labels import Labels
from tfbatch.pixels import ImageInput
from tfbatch.results import Floats
from tfbatch.scores import SCORE_OPTIONS, Scores, score_columns


class ZeroShotImageClassification:
    """Logits of each picture over the labels, whose embeddings are an input of every batch.

    Scores are a softmax over the labels, or a sigmoid for each where the model was trained so.
    """

    kind: ClassVar[str] = "image"
    side_columns: ClassVar[dict[str, str]] = {}
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = ("labels", "label_template", *SCORE_OPTIONS, "exact_decoding")
    window_rows: ClassVar[int] = 64
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._input = ImageInput(bundle, is_exact=config.exact_decoding)
        self._labels = Labels(bundle, config)
        self._scores = Scores(
            self._labels.names, "sigmoid" if bundle.setting("independent_labels") else "softmax", config
        )

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def weigh(self, window: Window) -> Indices:
        """The picture, and what the model sees of it."""
        return evenly(window) + self._input.weight

    def prepare(self, window: Window) -> Work:
        work = self._input.prepare(window.rows.column(self._column))

        def collate(inputs: Indices, length: int) -> Feeds:
            return {**work.collate(inputs, length), "text_embeds": self._labels.embeddings()}

        return replace(work, collate=collate)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._scores.finish(results)


TASK = ZeroShotImageClassification
