"""Whose an output folder is: who may write it, and what for.

A folder is tfbatch's own when it is empty or has a `_tfbatch`; it is held under a lock, for one job
at a time; and finished parts of one job are never mixed with another's.
"""

import fcntl
import json
import os
import re
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfbatch.errors import BadConfiguration, OutputRefused, TryAgain
from tfbatch.writer import write_json

SUCCESS = "_SUCCESS"
IMAGES = "images"
PART_IMAGES = re.compile(r"part-\d+-\d+-\d+-[0-9a-f]{8}-[0-9a-f]{8}")
PART_NAME = re.compile(PART_IMAGES.pattern + r"\.parquet")
TEMPORARY = re.compile(r"\.(_SUCCESS|run\.json|joined\.json|part-.+\.json)\.\d+")  # see writer.replace_file
Record = dict[str, Any]


class Claim:
    """A job's claim on an output folder; `run` is what run.json says of the job: its facts, which
    decide the output's bytes, and its input files."""

    def __init__(self, root: Path, run: Record) -> None:
        self.root = root
        self.state = root / "_tfbatch"
        self.done = self.state / "done"
        self.temporary = self.state / "tmp"
        self.contact_sheet = self.state / "contact_sheet.png"
        self._run = run
        self._lock = -1

    def check(self, *, overwrite: bool) -> None:
        """Refuse what `take` would refuse, lock and disk apart, and touch nothing."""
        try:
            self._refuse_foreign()
            if not overwrite:
                self._check_run()
        except OSError as error:
            raise OutputRefused(f"output {self.root} cannot be used: {error.strerror}") from error

    def take(self, *, overwrite: bool) -> bool:
        """Make the folder if need be, lock it, hold it to what it was made for.

        Returns:
            Whether it starts anew: what unfinished or other jobs had left was removed.

        Raises:
            OutputRefused: it cannot be made, or holds something that is not tfbatch's.
            TryAgain: another process writes here.
            BadConfiguration: it is the output of another job.
        """
        self.check(overwrite=overwrite)
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            self._take_lock()  # nothing else is touched before
            self.done.mkdir(exist_ok=True)
            if not overwrite:
                self._check_run()  # again, now that nobody else can change it
            self._sweep()
            anew = overwrite or not self._has_records()
            if anew:
                self._clear()
            (self.root / SUCCESS).unlink(missing_ok=True)  # of a job some of whose parts are gone
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir()
            write_json(self.state / "run.json", self._run)
        except OSError as error:
            raise OutputRefused(f"output {self.root} cannot be written: {error.strerror}") from error
        return anew

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _refuse_foreign(self) -> None:
        """Never write among, or clear away, what is not tfbatch's own."""
        nearest = next(parent for parent in self.root.absolute().parents if parent.exists())
        if not nearest.is_dir():
            raise OutputRefused(f"output {self.root} cannot be used: {nearest} is not a folder")
        if self.root.exists() and not self.root.is_dir():
            raise OutputRefused(f"output {self.root} exists and is not a folder")
        # in this order: another job may be making the folder its own just now
        if self.root.is_dir() and any(self.root.iterdir()) and not self.state.is_dir():
            raise OutputRefused(f"output {self.root} holds files that are not tfbatch's; choose another with -o")

    def _take_lock(self) -> None:
        path = self.state / "lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 1000).decode(errors="replace").strip()
            raise TryAgain(f"output {self.root} is being written by {holder or 'another process'}") from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())

    def _has_records(self) -> bool:
        """Whether a part was finished here."""
        return any(self.done.glob("part-*.json"))

    def _sweep(self) -> None:
        """Remove the small files that a killed run had not yet given their names."""
        for folder in (self.root, self.state, self.done):
            for path in folder.iterdir():
                if TEMPORARY.fullmatch(path.name):
                    path.unlink()

    def _clear(self) -> None:
        """Remove what earlier jobs wrote here, parts that were never recorded too, and nothing else."""
        (self.root / SUCCESS).unlink(missing_ok=True)
        others = {state.parent for state in self.root.rglob("_tfbatch") if state != self.state}
        for path in list(self.root.rglob("part-*.parquet")):
            if PART_NAME.fullmatch(path.name) and others.isdisjoint(path.parents):
                path.unlink()
        images = [path for path in (self.root / IMAGES).glob("part-*") if PART_IMAGES.fullmatch(path.name)]
        for path in (*images, self.done, self.temporary, self.contact_sheet, self.state / "run.json"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.done.mkdir()

    def _check_run(self) -> None:
        """Refuse to mix two jobs in one folder."""
        try:
            earlier = json.loads((self.state / "run.json").read_bytes())
            facts, inputs = earlier["facts"], earlier["inputs"]
            if not self._has_records():
                return  # nothing was finished that this job could be mixed with
        except (FileNotFoundError, NotADirectoryError):
            return
        except (ValueError, KeyError, TypeError):
            raise BadConfiguration(
                f"{self.state / 'run.json'} cannot be read; --overwrite starts this output anew"
            ) from None
        changed = [name for name in self._run["facts"] if facts.get(name) != self._run["facts"][name]]
        if [file["identity"] for file in inputs] != [file["identity"] for file in self._run["inputs"]]:
            changed.append("input files")
        if changed:
            raise BadConfiguration(
                f"output {self.root} was begun with another {', another '.join(changed)}. "
                f"Choose another folder with -o, or start this one anew with --overwrite."
            )
