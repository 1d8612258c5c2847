"""One embedding for each picture: to search, to cluster, to find what is alike."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Indices, Window
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.embeddings import EMBEDDING_OPTIONS, Embeddings, embedding_columns
from tfbatch.results import Floats
from tfbatch.tasks._pictures import SeeingTask


class ImageFeatureExtraction(SeeingTask):
    """As of texts: pooling and normalisation are the graph's."""

    options: ClassVar[tuple[str, ...]] = (*EMBEDDING_OPTIONS, "exact_decoding")

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        self._embeddings = Embeddings(bundle, config)

    @staticmethod
    def columns(config: RunConfig, bundle: Bundle | None = None) -> pa.Schema:
        return embedding_columns(config, bundle)

    def weigh(self, window: Window) -> Indices:
        """The picture, what the model sees of it, and its embedding."""
        return super().weigh(window) + self._embeddings.weight

    def unfit(self, results: Sequence[Floats | None]) -> dict[int, str]:
        return self._embeddings.unfit(results)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        return self._embeddings.finish(results)


TASK = ImageFeatureExtraction
