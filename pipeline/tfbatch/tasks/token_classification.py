"""A label for each token of a text, and what they make together: names of people, places, parts of speech."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Indices, Window, Work
from tfbatch.batching.cells import text_bytes
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.entities import Entities, entity_columns
from tfbatch.tasks._reading import BYTES, READING_OPTIONS, ReadingTask
from tfbatch.text.model_inputs import distinct_texts
from tfbatch.text.readings import Reading, read
from tfbatch.text.tokenizer import Tokenizer


class TokenClassification(ReadingTask):
    """A token's label comes from one window.

    The Hub's pipeline cuts long texts; with its `stride` it finds entities in each window and keeps
    the longest of those that overlap.
    """

    options: ClassVar[tuple[str, ...]] = ("aggregation", *READING_OPTIONS)

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._bundle, self._column, self._stride = bundle, column, config.stride
        self._tokenizer = Tokenizer(bundle, config.max_length)
        self._entities = Entities(bundle, config, self._tokenizer)
        self._frame = self._tokenizer.frame()
        self._tokenizer.check_stride(self._frame, self._stride)

    @staticmethod
    def columns(_: RunConfig, __: Bundle | None = None) -> pa.Schema:
        return entity_columns()

    def weigh(self, window: Window) -> Indices:
        """The row, and the tokens of its text and their scores."""
        more = BYTES * (len(self._bundle.manifest.labels) // 20)
        return super().weigh(window) + more * text_bytes(window.rows.column(self._column))

    def prepare(self, window: Window) -> Work:
        texts, text_of_row, errors = distinct_texts(window.rows.column(self._column))
        readings = [
            Reading(
                text=text,
                tokens=tokens,
                frame=self._frame,
                windows=self._tokenizer.windows(len(tokens.ids), self._frame, self._stride),
            )
            for text, tokens in zip(texts, self._tokenizer.read(texts), strict=True)
        ]
        return read(readings, text_of_row, errors, self._bundle, self._entities.keep)

    def finish(self, results: Sequence[Reading | None]) -> list[pa.Array]:
        return self._entities.finish(results)


TASK = TokenClassification
