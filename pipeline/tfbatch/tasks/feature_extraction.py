"""One embedding for each text: to search, to cluster, to find what is alike."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

from tfbatch.batches import Indices, Window
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.embeddings import EMBEDDING_OPTIONS, Embeddings, embedding_columns
from tfbatch.tasks._text import TEXT_OPTIONS, TextTask
from tfbatch.text.model_inputs import sum_windows


class FeatureExtraction(TextTask):
    """Pooling and normalisation are the graph's: what comes out of it is the embedding."""

    options: ClassVar[tuple[str, ...]] = (*TEXT_OPTIONS, *EMBEDDING_OPTIONS)

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        self._embeddings = Embeddings(bundle, config)

    @staticmethod
    def columns(config: RunConfig, bundle: Bundle | None = None) -> pa.Schema:
        return embedding_columns(config, bundle)

    def weigh(self, window: Window) -> Indices:
        """The text and its embedding."""
        return super().weigh(window) + self._embeddings.weight

    def unfit(self, results: Sequence[Any]) -> dict[int, str]:
        return self._embeddings.unfit(sum_windows(results))

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        """Embeddings (D,) of each text; of one in windows, their mean."""
        return self._embeddings.finish(sum_windows(results))


TASK = FeatureExtraction
