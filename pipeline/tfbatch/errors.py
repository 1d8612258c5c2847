"""Every error a user can meet, and the exit code that a scheduler reads.

    TfbatchError                 1   a bug, in another process of the job
    ├── UsageError               2   the command does not fit the data or itself
    ├── TooManyRowErrors         3   more bad rows than --max-errors allows
    ├── BadInput                65   an input file cannot be read as its footer promises
    ├── NoInput                 66   an input path does not exist or holds no Parquet
    ├── DeviceUnavailable       69   the device asked for is not there or does not work
    ├── ExportNotVerified       70   the graph is not what the checkpoint is
    ├── OutputRefused           73   the output folder cannot be used
    ├── OutputFailed            74   writing failed: disk full, device error
    ├── TryAgain                75   another process holds the output, time is up, a store is not reached
    ├── BadConfiguration        78   a bundle, config file or earlier run that does not fit
    └── Interrupted    129/130/143   SIGHUP, SIGINT or SIGTERM; finished parts are kept

The codes are those of BSD's sysexits.h where it has one. `report.py` turns the errors of a run into
exits, `cli.py` those of a command that does not begin. Messages say what was found and what to type;
they never hold the content of a cell.
"""

from typing import ClassVar


class TfbatchError(Exception):
    """The root of the tree; `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(TfbatchError):
    exit_code = 2


class TooManyRowErrors(TfbatchError):
    exit_code = 3


class BadInput(TfbatchError):
    exit_code = 65


class NoInput(TfbatchError):
    exit_code = 66


class DeviceUnavailable(TfbatchError):
    exit_code = 69


class ExportNotVerified(TfbatchError):
    exit_code = 70


class OutputRefused(TfbatchError):
    exit_code = 73


class OutputFailed(TfbatchError):
    exit_code = 74


class TryAgain(TfbatchError):
    exit_code = 75


class BadConfiguration(TfbatchError):
    exit_code = 78


class Interrupted(TfbatchError):
    """Ends the job where it is; the process ends with 128 + the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted: finished parts are kept, the same command goes on from there")
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # one class serves all signals


def of_exit_code(exit_code: int, message: str) -> TfbatchError:
    """The error that another process ended with."""
    kinds = {kind.exit_code: kind for kind in TfbatchError.__subclasses__() if kind is not Interrupted}
    return kinds.get(exit_code, TfbatchError)(message)


def first_line(error: Exception) -> str:
    """The first line of a library's message: some go on with a stack."""
    return (str(error).splitlines() or [type(error).__name__])[0]
