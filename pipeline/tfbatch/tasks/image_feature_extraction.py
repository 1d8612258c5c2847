"""One embedding for each picture: to search, to cluster, to find what is alike."""

from typing import ClassVar

import numpy as np
import pyarrow as pa

from tfbatch.batches import Floats, Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pixels import ImageInput


class ImageFeatureExtraction:
    """What comes out of the graph is the embedding."""

    kind: ClassVar[str] = "image"
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = ("exact_decoding",)
    window_rows: ClassVar[int] = 64
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._input = ImageInput(bundle, is_exact=config.exact_decoding)
        self._width = bundle.setting("embedding_width")

    @staticmethod
    def columns(_: RunConfig) -> pa.Schema:
        """`embedding`, a list of the model's width."""
        return pa.schema([pa.field("embedding", pa.list_(pa.float32()))])

    def weigh(self, window: Window) -> Indices:
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


TASK = ImageFeatureExtraction
