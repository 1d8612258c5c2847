"""What tasks have in common that say something of the tokens of a text, all of which is read."""

from typing import ClassVar

from tfbatch.batches import Indices, Window, evenly
from tfbatch.batching.cells import text_bytes

READING_OPTIONS = ("max_length", "stride")
BYTES = 40  # that a byte of text takes on its way beside itself: as a third of a token, and in what is found


class ReadingTask:
    """Long texts are read in windows, never cut."""

    kind: ClassVar[str] = "text"
    side_columns: ClassVar[dict[str, str]] = {}
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = READING_OPTIONS
    window_rows: ClassVar[int] = 2048  # enough to find rows of like length among
    window_bytes: ClassVar[int] = 4 << 20
    prepares_in_parallel: ClassVar[bool] = True

    _column: str

    def weigh(self, window: Window) -> Indices:
        return evenly(window) + BYTES * text_bytes(window.rows.column(self._column))
