"""What tasks that read text have in common."""

from typing import ClassVar

from tfbatch.batches import Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.text.model_inputs import TextInput

TEXT_OPTIONS = ("max_length", "overflow", "stride", "text_pair_column")


class TextTask:
    """Each text, or pair of texts, becomes one input, or several where a long one is read in windows."""

    kind: ClassVar[str] = "text"
    side_columns: ClassVar[dict[str, str]] = {"text_pair_column": "text"}
    default_model: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = TEXT_OPTIONS
    window_rows: ClassVar[int] = 4096  # enough to find rows of like length among
    window_bytes: ClassVar[int] = 2 << 20
    prepares_in_parallel: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column, self._pair_column = column, config.text_pair_column
        self._input = TextInput(bundle, config)

    def weigh(self, window: Window) -> Indices:
        return evenly(window)

    def prepare(self, window: Window) -> Work:
        seconds = None if self._pair_column is None else window.rows.column(self._pair_column)
        return self._input.prepare(window.rows.column(self._column), seconds)
