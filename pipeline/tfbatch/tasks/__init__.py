"""What a model is for. One file a task; the file's name is the registration.

`tasks/text_classification.py` is the task `text-classification` and ends in `TASK = ItsClass`.
"""

from importlib import import_module
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa

from tfbatch.batches import Floats, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError


class Task(Protocol):
    """Turns a column into model inputs, and model outputs into columns.

    `kind` is the kind of input column, a key of `cells.KINDS`; `default_model` the name of
    the bundle to use when none is named; `window_rows` and `window_bytes` how much is prepared at once, and
    `prepares_in_parallel` says that this uses several threads by itself;
    `output_shape` that of one row's model output.
    """

    kind: ClassVar[str]
    default_model: ClassVar[str | None]
    window_rows: ClassVar[int]
    window_bytes: ClassVar[int]
    prepares_in_parallel: ClassVar[bool]
    output_shape: tuple[int, ...]

    def __init__(self, bundle: Bundle, config: RunConfig) -> None: ...

    @staticmethod
    def columns(config: RunConfig) -> pa.Schema:
        """What the task adds to the input's columns."""

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        """Rows (R,) of the input column to distinct model inputs and row errors."""

    def finish(self, outputs: Floats) -> list[pa.Array]:
        """Model outputs (I, *output_shape) to one array (I,) for each of `columns`."""


def task_names() -> list[str]:
    """The tasks there are, in order of name."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def load_task(name: str) -> type[Task]:
    """The class of a task, importing its file alone.

    Raises:
        UsageError: there is no such task.
    """
    if name not in task_names():
        raise UsageError(f"there is no task {name}; there are: {', '.join(task_names())}")
    task: type[Task] = import_module(f"{__name__}.{name.replace('-', '_')}").TASK
    return task
