"""One embedding for each picture: to search, to cluster, to find what is alike."""

from typing import ClassVar

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pixels import ImageInput
from tfbatch.tasks.feature_extraction import FeatureExtraction


class ImageFeatureExtraction(FeatureExtraction):
    """As of texts: pooling and normalisation are the graph's."""

    kind: ClassVar[str] = "image"
    options: ClassVar[tuple[str, ...]] = ("exact_decoding",)
    window_rows: ClassVar[int] = 64  # decoded pictures are large
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column, ImageInput(bundle, is_exact=config.exact_decoding))


TASK = ImageFeatureExtraction
