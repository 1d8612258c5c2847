"""A progress bar on a terminal."""

import time
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfbatch.clock import per_second


def is_drawn() -> bool:
    """Whether the terminal moves its cursor, and the environment does not ask for plain lines."""
    return Console(stderr=True).is_interactive


class Bar:
    """A progress bar on standard error. Where the terminal has gone, rows are scored all the same."""

    def __init__(self) -> None:
        self._errors = 0
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows, {task.fields[rate]} rows/s, {task.fields[errors]:,} errors,"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def start(self, rows: int, done: int) -> None:
        self._started, self._done = time.monotonic(), 0
        self._task = self._progress.add_task("", total=rows, completed=done, rate="0", errors=0)
        with suppress(OSError):
            self._progress.start()

    def advance(self, rows: int, errors: int) -> None:
        self._errors += errors
        self._done += rows
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        with suppress(OSError):
            self._progress.update(self._task, advance=rows, rate=per_second(rate), errors=self._errors)

    def stop(self) -> None:
        with suppress(OSError):
            self._progress.stop()
