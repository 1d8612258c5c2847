"""One label for each text: sentiment, topic, intent."""

from typing import ClassVar

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.tasks._classification import Classification
from tfbatch.text import TextInput


class TextClassification(Classification):
    kind: ClassVar[str] = "text"
    default_model: ClassVar[str] = "sentiment"
    options: ClassVar[tuple[str, ...]] = ("max_length", "all_scores", "top_k")
    window_rows: ClassVar[int] = 2048  # enough to find rows of like length among
    window_bytes: ClassVar[int] = 4 << 20
    prepares_in_parallel: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column, TextInput(bundle, config.max_length))


TASK = TextClassification
