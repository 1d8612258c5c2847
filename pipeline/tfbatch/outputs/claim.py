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
        """Hold the storage, and hold it to what it was made for.

        Returns:
            Whether it starts anew: what unfinished or other jobs had left was removed.

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
            anew = overwrite or not self._has_records()
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
        try:
            earlier = json.loads(self._storage.read(RUN))
            facts, inputs = dict(earlier["facts"]), without_paths(earlier["inputs"])
        except (FileNotFoundError, NotADirectoryError):
            facts, inputs = {}, None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadConfiguration(
                f"{RUN} in output {self._storage.name} cannot be read; --overwrite starts this output anew"
            ) from None
        if not self._has_records():
            return  # nothing was finished that this job could be mixed with
        if inputs is None:
            raise BadConfiguration(
                f"{RUN} is gone from output {self._storage.name}, and with it what its finished parts are of; "
                f"--overwrite starts this output anew"
            )
        changed = [name for name in self._run["facts"] if facts.get(name) != self._run["facts"][name]]
        if inputs != without_paths(self._run["inputs"]):
            changed.append("input files")
        if changed:
            raise BadConfiguration(
                f"output {self._storage.name} was begun with another {', another '.join(changed)}. "
                f"Choose another folder with -o, or start this one anew with --overwrite."
            )


def without_paths(inputs: list[Record]) -> list[Record]:
    """What is known of input files but where they lie: a job may go on with them elsewhere."""
    return [{name: value for name, value in file.items() if name != "path"} for file in inputs]


def is_hive(name: PurePosixPath) -> bool:
    """Whether only folders such as `day=1` are above a part: what a user copied elsewhere is not ours."""
    return all("=" in folder for folder in name.parts[:-1])
