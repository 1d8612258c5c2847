"""One embedding for each picture: to search, to cluster, to find what is alike."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.embeddings import EMBEDDING_OPTIONS, Embeddings, embedding_columns
from tfbatch.pixels import ImageInput
from tfbatch.results import Floats


class ImageFeatureExtraction:
    """As of texts: pooling and normalisation are the graph's."""

    kind: ClassVar[str] = "image"
    side_columns: ClassVar[dict[str, str]] = {}
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = (*EMBEDDING_OPTIONS, "exact_decoding")
    window_rows: ClassVar[int] = 64  # decoded pictures are large
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._input = ImageInput(bundle, is_exact=config.exact_decoding)
        self._embeddings = Embeddings(bundle, config)

    @staticmethod
    def columns(config: RunConfig, bundle: Bundle | None = None) -> pa.Schema:
        return embedding_columns(config, bundle)

    def weigh(self, window: Window) -> Indices:
        """The picture, what the model sees of it, and its embedding."""
        return evenly(window) + self._input.weight + self._embeddings.weight

    def prepare(self, window: Window) -> Work:
        return self._input.prepare(window.rows.column(self._column))

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._embeddings.finish(results)


TASK = ImageFeatureExtraction
