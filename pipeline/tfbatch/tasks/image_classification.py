"""One label for each picture."""

from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Floats, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.images import ImageInput
from tfbatch.scores import Scores, score_columns


class ImageClassification:
    kind: ClassVar[str] = "image"
    default_model: ClassVar[str] = "fashion"
    window_rows: ClassVar[int] = 64  # decoded pictures are large: 38 MB at 448 x 448
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        if config.max_length is not None:
            raise UsageError("--max-length is for text; this bundle reads pictures")
        self._input = ImageInput(bundle)
        self._scores = Scores(bundle, config)
        self.output_shape = (len(self._scores.labels),)

    @staticmethod
    def columns(config: RunConfig) -> pa.Schema:
        return score_columns(config)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        return self._input.prepare(cells)

    def finish(self, outputs: Floats) -> list[pa.Array]:
        return self._scores.finish(outputs)


TASK = ImageClassification
