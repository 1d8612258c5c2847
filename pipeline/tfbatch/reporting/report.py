"""What a scheduler reads of a run: the exit code, the last line of standard output, and a metrics
file. All three are made of one record, and none holds the content of a cell."""

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from types import FrameType
from typing import NoReturn

from tfbatch.errors import OutputFailed, TfbatchError, TryAgain, UsageError, first_line
from tfbatch.host.durable import replace_file, spooled_name
from tfbatch.host.signals import HEARD
from tfbatch.host.standard_streams import say, tell
from tfbatch.inputs.sources import SHORT
from tfbatch.outputs.claim import Record
from tfbatch.reporting.progress import log
from tfbatch.reporting.tally import Tally, so_far

NO_THREAD = "can't start new thread"  # as Python says it
SECONDS_TO_WAIT = 0.5  # for another thread's last word
SECONDS_TO_SAY = 5  # why a process is given up
GOES_ON = {TryAgain.exit_code, *(128 + number for number in HEARD)}  # codes after which the same command goes on

METRIC = "tfbatch_"  # begins the names of all
METRICS: dict[str, tuple[str, Callable[[Record], float | None]]] = {
    "success": ("1 when the last run ended with exit code 0.", lambda record: int(record["exit_code"] == 0)),
    "exit_code": ("Exit code of the last run.", lambda record: record["exit_code"]),
    "rows": ("Rows in finished parts.", lambda record: record["rows"]),
    "row_errors": ("Rows in finished parts that have an error.", lambda record: record["errors"]),
    "parts": ("Finished parts.", lambda record: record["parts"]),
    "duration_seconds": ("How long the last run took.", lambda record: record["seconds"]),
    "rows_per_second": ("Rows the last run scored in a second.", lambda record: record["rows_per_second"]),
    "peak_memory_bytes": ("The most memory that it held at once.", lambda record: record["peak_memory_bytes"]),
    "padding_ratio": ("Computed tokens over real ones.", lambda record: record.get("padding_ratio")),
    "end_timestamp_seconds": ("When the last run ended, in Unix time.", lambda _: time.time()),
}


@dataclass
class Report:
    """Ends a run, well or not; `tally` is counted on its way.

    The thread that begins to say how it ended says it alone: the last word is never given back, and
    the exit code that was said is the one that the process ends with.
    """

    metrics_file: Path | None = None
    log_format: str = "text"
    tally: Tally = field(default_factory=Tally)
    _last_word: RLock = field(default_factory=RLock, repr=False)
    _said: int | None = None

    def check(self) -> None:
        """Refuse a metrics file that could not be written at the end, or whose place is another file's."""
        if (reason := self._unfit()) is not None:
            raise UsageError(f"--metrics-file {self.metrics_file}{reason}")

    def _unfit(self) -> str | None:
        """Why there can be no metrics file, which then is not touched."""
        file = self.metrics_file
        if file is None:
            return None
        if not os.access(file.parent, os.W_OK | os.X_OK):
            return f": {file.parent} is no folder to write in"
        if len(os.fsencode(spooled_name(file))) > os.pathconf(file.parent, "PC_NAME_MAX"):
            return ": the name is too long"
        if file.exists() and not (file.is_file() and is_metrics(file)):
            return " is there and holds something else; choose another name"
        return None

    def done(self, result: Record) -> None:
        """Say that all went well.

        Raises:
            OutputFailed: the metrics file cannot be written, so that it would tell of an earlier run, or standard
                output cannot.
        """
        self._last_word.acquire()
        result = {"exit_code": 0, **result}
        if self.metrics_file is not None and result["status"] != "planned":
            try:
                replace_file(self.metrics_file, metrics(result, self.metrics_file.stem), spool=self.metrics_file.parent)
            except OSError as error:
                raise OutputFailed(
                    f"the output is finished, but not --metrics-file {self.metrics_file}: {error.strerror}"
                ) from error
        self._said = 0
        try:
            say(result)
        except OutputFailed as error:
            done = "" if result["status"] == "planned" else "the output is finished, but "
            raise OutputFailed(f"{done}{error}") from error

    def failed(self, exit_code: int, reason: str) -> None:
        """Say why not."""
        self._last_word.acquire()
        if exit_code in GOES_ON and self.tally.rows and not self.tally.records:
            reason += "; no part was finished yet, with fewer --rows-per-part less is done twice"
        result = {"status": "failed", "exit_code": exit_code, "reason": reason, **so_far(self.tally)}
        self._log(exit_code, reason)
        if self.metrics_file is not None and (unfit := self._unfit()) is None:
            try:
                replace_file(self.metrics_file, metrics(result, self.metrics_file.stem), spool=self.metrics_file.parent)
            except OSError as error:
                self._log(exit_code, f"--metrics-file {self.metrics_file} cannot be written: {error.strerror}")
        elif self.metrics_file is not None and "--metrics-file" not in reason:
            self._log(exit_code, f"--metrics-file {self.metrics_file}{unfit}")
        self._said = exit_code
        with suppress(OutputFailed):
            say(result)

    def say_stacks(self) -> None:
        """Say where each thread is, in names of files and functions alone."""
        if self.log_format == "json":
            log("warning", "stacks, most recent call first", stacks=stacks())
        else:
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)

    def give_up(self, error: TfbatchError) -> NoReturn:
        """End the process where it is, whatever else of it does: some of it may not listen.

        It is killed where not even that can be said, as to a disk that does not answer.
        """
        signal.alarm(SECONDS_TO_SAY)
        try:
            if self._last_word.acquire(timeout=SECONDS_TO_WAIT):
                self.failed(error.exit_code, str(error))
            sys.stdout.flush()
        finally:
            os._exit(error.exit_code if self._said is None else self._said)

    def _log(self, exit_code: int, reason: str) -> None:
        if self.log_format == "json":
            log("error", reason, exit_code=exit_code)
        else:
            tell(f"tfbatch: {reason}")


def what_failed(error: Exception) -> tuple[int, str]:
    """Exit code and reason of an error, which for a bug is where it is: not its message, which may
    hold what is in a cell."""
    if isinstance(error, TfbatchError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return TryAgain.exit_code, "not enough memory; fewer --threads take less, and the same command goes on"
    if getattr(error, "errno", None) in SHORT or NO_THREAD in str(error):
        return TryAgain.exit_code, f"{first_line(error)}; fewer --threads take less, and the same command goes on"
    calls = traceback.walk_tb(error.__traceback__)
    return TfbatchError.exit_code, f"a bug: {type(error).__name__} in {places(calls)}"


def stacks() -> list[str]:
    """Where each thread is."""
    return [places(traceback.walk_stack(frame)) for frame in sys._current_frames().values()]


def places(calls: Iterable[tuple[FrameType, int]]) -> str:
    """Calls as the files, lines and functions they are in."""
    return ", ".join(f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}" for frame, line in calls)


def is_metrics(file: Path) -> bool:
    """Whether a file is one that may be replaced: a run's metrics, or empty."""
    begin = f"# HELP {METRIC}".encode()
    with file.open("rb") as opened:
        return opened.read(len(begin)) in (begin, b"")


def metrics(result: Record, run: str) -> str:
    """A result in the text format of Prometheus, labelled with the name of its run."""
    return "\n".join(_metric_lines(result, run)) + "\n"


def _metric_lines(result: Record, run: str) -> Iterator[str]:
    label = run.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    for name, (text, value_of) in METRICS.items():
        if (value := value_of(result)) is not None:
            yield f"# HELP {METRIC}{name} {text}"
            yield f"# TYPE {METRIC}{name} gauge"
            yield f'{METRIC}{name}{{run="{label}"}} {value}'
