"""What a model is for. One file a task; the file's name is the registration.

`tasks/text_classification.py` is the task `text-classification` and ends in `TASK = ItsClass`.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from tfbatch.batches import Indices, Window, Work
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.pictures.contact_sheet import Panel
from tfbatch.runtimes.top import Top


class Task(Protocol):
    """Turns a column into model inputs, and model outputs into columns.

    `kind` is the kind of input column, a key of `cells.KINDS`; `default_model` the name of
    the bundle to use when none is named; `side_columns` the options that name further columns, with
    the kind of each; `options` the fields of RunConfig that are this task's
    own; `window_rows` and `window_bytes`, of the columns that it reads, how much is prepared at once, and
    `prepares_in_parallel` says that this uses several threads by itself; its windows are prepared one at a time.
    """

    kind: ClassVar[str]
    side_columns: ClassVar[dict[str, str]]
    default_model: ClassVar[str | None]
    options: ClassVar[tuple[str, ...]]
    window_rows: ClassVar[int]
    window_bytes: ClassVar[int]
    prepares_in_parallel: ClassVar[bool]

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None: ...

    @staticmethod
    def columns(config: RunConfig, bundle: Bundle | None = None) -> pa.Schema:
        """What the task adds to the input's columns; without a bundle, as far as it is known without."""

    def weigh(self, window: Window) -> Indices:
        """About how many bytes each row (R,) will take on its way."""

    def prepare(self, window: Window) -> Work:
        """Rows (R,) to model inputs and row errors."""

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        """The work's results to one array of their number for each of `columns`."""


@runtime_checkable
class MakesPictures(Protocol):
    """A task whose results can be looked at."""

    def panels(self, result: Any) -> list[Panel]:
        """What to show of a result, from left to right."""


@runtime_checkable
class Refuses(Protocol):
    """A task whose columns cannot hold every result that is a number."""

    def unfit(self, results: Sequence[Any]) -> dict[int, str]:
        """The reason of each result that they cannot."""


@runtime_checkable
class TakesTop(Protocol):
    """A task that is given no logits but the best."""

    top: Top


def type_name(kind: pa.DataType) -> str:
    """A column's type as it is listed, N the numbers of an embedding."""
    return str(kind).replace("[0]", "[N]")


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
