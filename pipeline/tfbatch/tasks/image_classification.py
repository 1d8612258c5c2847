"""One label for each picture."""

from typing import ClassVar

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pixels import ImageInput
from tfbatch.tasks._classification import Classification


class ImageClassification(Classification):
    kind: ClassVar[str] = "image"
    default_model: ClassVar[str] = "fashion"
    options: ClassVar[tuple[str, ...]] = ("all_scores", "top_k", "exact_decoding")
    window_rows: ClassVar[int] = 64  # decoded pictures are large: 38 MB at 448 x 448
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column, ImageInput(bundle, is_exact=config.exact_decoding))


TASK = ImageClassification
