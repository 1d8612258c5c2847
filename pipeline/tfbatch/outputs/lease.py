"""Who writes to a place in an object store: an object that says so until a time, and is replaced only
by whoever has read the last version of it.

Machines' clocks may differ by MARGIN. A holder that cannot renew its lease stops before others may
take it over.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from tfbatch.errors import TryAgain
from tfbatch.outputs.holder import describe, is_gone, mark
from tfbatch.stages import every

if TYPE_CHECKING:
    from obstore import UpdateVersion

SECONDS = 90.0  # that a lease holds
BETWEEN = 15.0  # seconds from one renewal to the next
MARGIN = 30.0  # seconds


class Lease:
    """A lease on an output, kept in the object `path` of a store, from `take` to `release`."""

    def __init__(self, store: Any, path: str, output: str) -> None:
        self._store = store
        self._path = path
        self._output = output
        self._content: dict[str, Any] = {}
        self._version: UpdateVersion = {}
        self._until = 0.0
        self._end: Callable[[], None] | None = None
        self._renewing = Lock()
        self._is_lost = False

    def take(self) -> None:
        """Take the lease, and renew it on a thread until `release`.

        Raises:
            TryAgain: another process has it.
            obstore's errors: the store fails.
        """
        self._content = {"holder": describe(), "token": uuid4().hex, **mark()}
        try:
            self._put("create")
        except AlreadyExistsError:
            found, self._version = self._read()
            self._refuse_held(found)
            try:
                self._put(self._version)
            except PreconditionError:
                raise TryAgain(f"output {self._output} was just taken by another process") from None
        self._end = every(BETWEEN, self.renew)

    def ensure(self) -> None:
        """Look whether it is still held.

        Raises:
            TryAgain: it ran out, or was taken over.
        """
        if time.time() > self._until - MARGIN:
            raise TryAgain(
                f"the lease on output {self._output} could not be renewed, or another process took it over; "
                f"the same command goes on from there"
            )

    def renew(self) -> None:
        """Hold it for longer; where the store does not answer there is time to try again."""
        with self._renewing, suppress(BaseError, OSError):
            if self._is_lost:
                return
            try:
                self._put(self._version)
            except PreconditionError:
                found, latest = self._read()
                if found.get("token") != self._content["token"]:
                    self._is_lost, self._until = True, 0.0
                else:  # an answer was lost on its way: the version is of our own making
                    self._version, self._until = latest, found["until"]

    def release(self) -> None:
        """Give it back, unless it is another's by now; where the store does not answer it runs out."""
        if self._end is None:
            return
        self._end()
        self._end = None
        with self._renewing, suppress(BaseError, OSError):
            if not self._is_lost:
                obstore.put(self._store, self._path, b"{}", mode=self._version)

    def _put(self, mode: Any) -> None:
        until = time.time() + SECONDS
        content = json.dumps({**self._content, "until": until}).encode()
        self._version = version(obstore.put(self._store, self._path, content, mode=mode))
        self._until = until

    def _read(self) -> "tuple[dict[str, Any], UpdateVersion]":
        """What the object says, nothing where it is not a lease, and its version."""
        found = obstore.get(self._store, self._path)
        try:
            content = json.loads(bytes(found.bytes()))
            return {"until": float(content.pop("until")), **content}, version(found.meta)
        except (ValueError, AttributeError, TypeError, KeyError):
            return {"until": 0.0}, version(found.meta)

    def _refuse_held(self, found: dict[str, Any]) -> None:
        """Raise TryAgain where the holder may still be at work."""
        left = found["until"] + MARGIN - time.time()
        if left > 0 and not is_gone(found) and found.get("token") != self._content["token"]:
            raise TryAgain(
                f"output {self._output} is being written by {found.get('holder')}; "
                f"if that ended without a word, it is free in {left:.0f} s"
            )


def version(meta: Any) -> "UpdateVersion":
    """What a store knows a version of an object by, to be replaced only if it is still there."""
    found: UpdateVersion = {}
    for name in ("e_tag", "version"):
        if meta.get(name) is not None:
            found[name] = meta[name]
    return found
