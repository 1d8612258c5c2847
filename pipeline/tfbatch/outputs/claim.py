"""What an output is for: one job at a time, whose finished parts are never mixed with another's."""

import json
import re
from pathlib import PurePosixPath
from typing import Any

from tfbatch.errors import BadConfiguration, OutputRefused
from tfbatch.host.durable import to_json
from tfbatch.outputs.storage import STATE, Storage

SUCCESS = "_SUCCESS"
IMAGES = "_images"  # which readers of a folder of parts pass over, as all that begins so
DONE = f"{STATE}/done"
RUN = f"{STATE}/run.json"
CONTACT_SHEET = f"{STATE}/contact_sheet.png"
PART_IMAGES = re.compile(r"part-\d+-\d+-\d+-[0-9a-f]{8}-[0-9a-f]{8}")
PART_NAME = re.compile(PART_IMAGES.pattern + r"\.parquet")
Record = dict[str, Any]


class Claim:
    """A job's claim on an output; `run` is what run.json says of the job: its facts, which decide
    the output's bytes, and its input files."""

    def __init__(self, storage: Storage, run: Record) -> None:
        self._storage = storage
        self._run: Record = json.loads(to_json(run))  # as it is read back: what was a tuple is a list there

    def check(self, *, overwrite: bool) -> None:
        """Refuse what `take` would refuse, other processes apart, and touch nothing."""
        try:
            self._storage.check()
            if not overwrite:
                self._check_run()
        except OSError as error:
            raise OutputRefused(f"output {self._storage.name} cannot be used: {error.strerror}") from error

    def take(self, *, overwrite: bool) -> bool:
        """Hold the storage, and hold it to what it was made for. With `overwrite` what another job left or this one
        finished is removed; what this one has begun is gone on with, as the next try of a scheduler would want it.

        Returns:
            Whether it starts anew.

        Raises:
            OutputRefused: it cannot be made, or holds something that is not tfbatch's.
            TryAgain: another process writes here.
            BadConfiguration: it is the output of another job.
        """
        self.check(overwrite=overwrite)
        try:
            self._storage.hold()
            if not overwrite:
                self._check_run()  # again, now that nobody else can change it
            anew = not self._has_records() or (overwrite and not self._is_begun())
            if anew:
                self._clear()
            self._storage.remove(SUCCESS)  # of a job some of whose parts are gone
            self._storage.write(RUN, to_json(self._run))
        except OSError as error:
            raise OutputRefused(f"output {self._storage.name} cannot be written: {error.strerror}") from error
        return anew

    def release(self) -> None:
        """Let others write."""
        self._storage.release()

    def _has_records(self) -> bool:
        return next(self._storage.files(DONE), None) is not None

    def _is_begun(self) -> bool:
        """Whether the records are of this very job, and it is not done."""
        try:
            earlier = self._read_run()
        except BadConfiguration:
            return False
        return earlier is not None and not self._changes(*earlier) and not self._has(SUCCESS)

    def _has(self, name: str) -> bool:
        try:
            return self._storage.size(name) >= 0
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _clear(self) -> None:
        """Remove what earlier jobs wrote here, parts that were never recorded too, and nothing else."""
        self._storage.remove(SUCCESS)
        names = [PurePosixPath(name) for name in self._storage.files()]
        others = {
            folder.parent for name in names for folder in name.parents if folder.name == STATE and folder.parent.name
        }
        parts = [
            name
            for name in names
            if PART_NAME.fullmatch(name.name) and others.isdisjoint(name.parents) and is_hive(name)
        ]
        pictures = {name.parts[1] for name in names if len(name.parts) > 2 and name.parts[0] == IMAGES}
        folders = [f"{IMAGES}/{name}" for name in pictures if PART_IMAGES.fullmatch(name)]
        self._storage.remove(*map(str, parts), *folders, DONE, CONTACT_SHEET)
        self._storage.remove(RUN)  # last: what is left without it could be taken for another job's

    def _check_run(self) -> None:
        """Refuse to mix two jobs in one output."""
        earlier = self._read_run()
        if not self._has_records():
            return  # nothing was finished that this job could be mixed with
        if earlier is None:
            raise BadConfiguration(
                f"{RUN} is gone from output {self._storage.name}, and with it what its finished parts are of; "
                f"--overwrite starts this output anew"
            )
        if changes := self._changes(*earlier):
            raise BadConfiguration(
                f"output {self._storage.name} is another job's: {', '.join(changes)}. "
                f"Choose another folder with -o, or start this one anew with --overwrite."
            )

    def _read_run(self) -> tuple[Record, list[Record]] | None:
        """The facts and the input files that the output was begun with; None where that is not told.

        Raises:
            BadConfiguration: it cannot be read.
        """
        try:
            earlier = json.loads(self._storage.read(RUN))
            return dict(earlier["facts"]), [dict(file) for file in earlier["inputs"]]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadConfiguration(
                f"{RUN} in output {self._storage.name} cannot be read; --overwrite starts this output anew"
            ) from None

    def _changes(self, facts: Record, inputs: list[Record]) -> list[str]:
        """In what this job differs from one with such facts and input files."""
        changed = [f"another {name}" for name, value in self._run["facts"].items() if facts.get(name) != value]
        return [*changed, *changed_inputs(inputs, self._run["inputs"])]


def changed_inputs(then: list[Record], now: list[Record]) -> list[str]:
    """How the input files of two jobs differ, in words; nothing where they are the same, wherever they lie now."""
    if without_paths(then) == without_paths(now):
        return []
    before, after = ({str(file.get("path")): file for file in files} for files in (then, now))
    kinds = {
        "new": [path for path in after if path not in before],
        "gone": [path for path in before if path not in after],
        "changed since (size, time or inode)": [p for p in after if p in before and after[p] != before[p]],
    }
    told = [
        f"input {paths[0]}{f' and {len(paths) - 1:,} others are' if len(paths) > 1 else ' is'} {kind}"
        for kind, paths in kinds.items()
        if paths
    ]
    return told or ["the input files in another order"]


def without_paths(inputs: list[Record]) -> list[Record]:
    """What is known of input files but where they lie: a job may go on with them elsewhere."""
    return [{name: value for name, value in file.items() if name != "path"} for file in inputs]


def is_hive(name: PurePosixPath) -> bool:
    """Whether only folders such as `day=1` are above a part: what a user copied elsewhere is not ours."""
    return all("=" in folder for folder in name.parts[:-1])
