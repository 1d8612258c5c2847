"""What tasks that read pictures have in common."""

from typing import ClassVar

from tfbatch.batches import Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pictures.pixels import ImageInput


class PictureTask:
    """Pictures are decoded on as many threads as there are, a process behind each."""

    kind: ClassVar[str] = "image"
    side_columns: ClassVar[dict[str, str]] = {}
    default_model: ClassVar[str | None] = None
    window_rows: ClassVar[int] = 64  # decoded pictures are large: 38 MB at 448 x 448
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False


class SeeingTask(PictureTask):
    """Each distinct picture becomes one input, as the model's processor fits it."""

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._input = ImageInput(bundle, is_exact=config.exact_decoding)

    def weigh(self, window: Window) -> Indices:
        """The picture, and what the model sees of it."""
        return evenly(window) + self._input.weight

    def prepare(self, window: Window) -> Work:
        return self._input.prepare(window.rows.column(self._column))
