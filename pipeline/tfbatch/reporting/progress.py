"""How far a run is, for whoever watches: a bar on a terminal, elsewhere a line now and then."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Protocol

from tfbatch.clock import per_second
from tfbatch.host.standard_streams import tell

SECONDS_BETWEEN_LINES = 10.0


class Watcher(Protocol):
    """Hears of rows as they are done."""

    def start(self, rows: int, done: int) -> None:
        """The job has so many rows, of which an earlier run finished some."""

    def advance(self, rows: int, errors: int) -> None:
        """So many more rows are done, so many of them with an error."""

    def stop(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def start(self, rows: int, done: int) -> None:
        pass

    def advance(self, rows: int, errors: int) -> None:
        pass

    def stop(self) -> None:
        pass


class Lines:
    """A line on standard error, at most one in ten seconds."""

    def __init__(self) -> None:
        self._errors = 0

    def start(self, rows: int, done: int) -> None:
        self._started = self._said = time.monotonic()
        self._rows, self._before, self._done = rows, done, 0

    def advance(self, rows: int, errors: int) -> None:
        self._done += rows
        self._errors += errors
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self.say(self._before + self._done, self._rows, self._done / (now - self._started), self._errors)

    def say(self, done: int, rows: int, rate: float, errors: int) -> None:
        """One line; `rate` is in rows a second."""
        left = (rows - done) / rate if rate else 0
        so_far = f"{done:,} of {rows:,} rows, {per_second(rate)} rows/s, {errors:,} errors"
        tell(f"{so_far}, {left:,.0f} s left")

    def stop(self) -> None:
        pass


class JsonLines(Lines):
    """The same for machines: a JSON object a line."""

    def say(self, done: int, rows: int, rate: float, errors: int) -> None:
        log("info", "progress", rows_done=done, rows=rows, rows_per_second=round(rate, 1), errors=errors)


def log(level: str, message: str, **facts: object) -> None:
    """A line of --log-format json on standard error."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    tell(json.dumps({"time": now, "level": level, "message": message, **facts}, ensure_ascii=False))


def warn(text: str, *, log_format: str) -> None:
    """What whoever watches should know, or is told of in the morning."""
    if log_format == "json":
        log("warning", text)
    else:
        tell(f"tfbatch: {text}")


def choose_watcher(*, quiet: bool, log_format: str) -> Watcher:
    """A bar where standard error is a terminal that draws it, lines where it is not, nothing where asked."""
    if quiet:
        return Silent()
    if log_format == "json":
        return JsonLines()
    if not is_terminal():
        return Lines()
    from tfbatch.reporting.bar import Bar, is_drawn  # by rich, whose import is a twentieth of a short job

    return Bar() if is_drawn() else Lines()


def is_terminal() -> bool:
    """Whether standard error is one; it may be closed."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
