"""One embedding for each text: to search, to cluster, to find what is alike."""

from typing import ClassVar

import numpy as np
import pyarrow as pa

from tfbatch.batches import Floats, Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.tasks._classification import Input
from tfbatch.text import TextInput


class FeatureExtraction:
    """Pooling and normalisation are the graph's: what comes out of it is the embedding."""

    kind: ClassVar[str] = "text"
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = ("max_length",)
    window_rows: ClassVar[int] = 2048  # enough to find rows of like length among
    window_bytes: ClassVar[int] = 4 << 20
    prepares_in_parallel: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, config: RunConfig, column: str, source: Input | None = None) -> None:
        self._column = column
        self._input = source or TextInput(bundle, config.max_length)
        self._width = bundle.setting("embedding_width")

    @staticmethod
    def columns(_: RunConfig) -> pa.Schema:
        """`embedding`, a list of the model's width."""
        return pa.schema([pa.field("embedding", pa.list_(pa.float32()))])

    def weigh(self, window: Window) -> Indices:
        """The text and, four bytes a number, the embedding: as it is computed, as a column, in its rows' order."""
        return evenly(window) + 12 * self._width

    def prepare(self, window: Window) -> Work:
        return self._input.prepare(window.rows.column(self._column))

    def finish(self, results: list[Floats | None]) -> list[pa.Array]:
        """The column of embeddings (D,), one for each result; those of no result mean nothing."""
        none = np.zeros(self._width, np.float32)
        rows = [none if embedding is None else embedding for embedding in results]
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * self._width
        values = np.array(rows, np.float32).ravel()
        return [pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.float32()))]


TASK = FeatureExtraction
