"""What a command says: on standard output to programs, which it does or fails, on standard error to people."""

import codecs
import errno
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from tfbatch.errors import OutputFailed


def say(result: Mapping[str, Any]) -> None:
    """The last line: a JSON object, in ASCII where standard output has no way to say more.

    Raises:
        OutputFailed: it cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # where it is a text in memory, or closed
    put(json.dumps(result, ensure_ascii=codecs.lookup(encoding).name != "utf-8"))


def put(text: str) -> None:
    """Write lines.

    Raises:
        OutputFailed: they cannot be written, and are not tried again when the process ends, whose exit code that
            would change.
    """
    try:
        if sys.stdout is None:  # it was closed when this process began
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        click.echo(text)
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a device
            os.dup2(nowhere.fileno(), 1)
        raise OutputFailed(f"standard output cannot be written: {error.strerror}") from error


def tell(text: str) -> None:
    """Lines on standard error; where that is a full disk, or who read it has gone, work is done all the same."""
    with suppress(OSError, ValueError):  # the second where it is closed
        click.echo(text, err=True)
