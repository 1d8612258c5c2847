"""The output folder: who may write it, what it is for, which parts are finished.

    OUT/part-<file>-<first row>-<last row>-<input id>-<fingerprint>.parquet
    OUT/_tfbatch/run.json        what this folder is the output of
    OUT/_tfbatch/lock            held while a job writes here
    OUT/_tfbatch/done/*.json     one record a part: the part is finished when this exists
    OUT/_tfbatch/tmp/            parts being written
    OUT/_SUCCESS                 last: all parts are there

A part is a pure function of its input rows and the job's facts, so writing it again is harmless.
It is written under a temporary name, since pyarrow leaves a valid, short file behind when it is
interrupted, then synced, linked to its name, and recorded: the record is the commit point.
"""

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.bundle import sha256
from tfbatch.errors import BadConfiguration, BadInput, OutputFailed, OutputRefused, TryAgain, first_line
from tfbatch.plan import InputFile, Part, Plan, input_identity
from tfbatch.writer import PartWriter, sync_folder, write_json

SUCCESS = "_SUCCESS"
JOINED = "joined.json"  # which file was put at a single target: its size and inode
PART_NAME = re.compile(r"part-\d+-\d+-\d+-[0-9a-f]{8}-[0-9a-f]{8}\.parquet")
Record = dict[str, Any]


class Output:
    """An output folder, held by this process from `open` to `close`.

    `target` is a folder, or one `.parquet` file: then the parts lie in `<target>.tfbatch` until
    `finish` joins them.
    """

    def __init__(self, target: Path, plan: Plan, schema: pa.Schema, facts: Record, fingerprint: str) -> None:
        single = target.suffix == ".parquet" and not target.is_dir()
        self.target = target
        self.root = target.with_name(target.name + ".tfbatch") if single else target
        self._single = single
        self._plan = plan
        self._schema = schema
        self._fingerprint = fingerprint
        self._identities = [file.identity for file in plan.files]
        inputs = [{"path": str(file.path), "rows": file.rows, "identity": file.identity} for file in plan.files]
        self._run: Record = {"fingerprint": fingerprint, "facts": facts, "inputs": inputs}
        self._state = self.root / "_tfbatch"
        self._done = self._state / "done"
        self._temporary = self._state / "tmp"
        self._lock = -1
        self._writer: PartWriter | None = None
        self._errors = 0  # of the part being written

    def open(self, *, overwrite: bool) -> None:
        """Take the folder: make it if need be, lock it, hold it to what it was made for.

        Raises:
            OutputRefused: it cannot be made, or holds something that is not tfbatch's.
            TryAgain: another process writes here.
            BadConfiguration: it is the output of another job.
        """
        self.check(overwrite=overwrite)
        try:
            self._done.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if not overwrite:
                self._check_run()  # again, now that nobody else can change it
            if overwrite or not any(self._done.iterdir()):
                self._clear()
            (self.root / SUCCESS).unlink(missing_ok=True)  # of a job some of whose parts are gone
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir()
            write_json(self._state / "run.json", self._run)
        except OSError as error:
            raise OutputRefused(f"output {self.root} cannot be written: {error.strerror}") from error

    def check(self, *, overwrite: bool) -> None:
        """Refuse what `open` would refuse, lock and disk apart, and touch nothing."""
        try:
            self._refuse_foreign(overwrite)
            if not overwrite:
                self._check_run()
        except OSError as error:
            raise OutputRefused(f"output {self.root} cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Drop the part being written and let go of the folder."""
        try:
            if self._writer is not None:
                self._writer.drop()
        finally:
            self._writer = None
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def records(self) -> dict[Part, Record]:
        """The finished parts of the plan: recorded, and there with the recorded size."""
        found = {}
        joined = self._is_joined(self._fingerprint, self._identities)
        for part in self._plan.parts:
            try:
                record = json.loads(self._record_path(part).read_bytes())
                if joined or (self.root / record["part"]).stat().st_size == record["bytes"]:
                    found[part] = record
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def success(self) -> Record | None:
        """What `_SUCCESS` says, if it is there and is of this job."""
        try:
            content: Record = json.loads((self.root / SUCCESS).read_bytes())
        except (OSError, ValueError):
            return None
        if content.get("fingerprint") != self._fingerprint or content.get("inputs") != self._identities:
            return None
        if self._single and not self._is_joined(self._fingerprint, self._identities):
            return None
        return content

    def is_finished(self) -> bool:
        """Whether this very job is done and all of its parts are still there."""
        return self.success() is not None and len(self.records()) == len(self._plan.parts)

    def append(self, part: Part, table: pa.Table, errors: int) -> Record | None:
        """Add the next rows of a part, some with errors; returns its record when they were the last."""
        with self._failing_as_output(self.root):
            if self._writer is None:
                self._writer = PartWriter(self._temporary / Path(part.name(self._fingerprint)).name, self._schema)
                self._errors = 0
            self._writer.append(table)
            self._errors += errors
            if self._writer.rows < part.rows:
                return None
            self._writer.finish()
            record = self._commit(part, self._writer)
            self._writer = None
            return record

    def finish(self, records: dict[Part, Record], summary: Record) -> None:
        """Write `_SUCCESS`, after joining the parts where one file was asked for.

        Raises:
            OutputFailed: the records do not add up to the plan.
        """
        rows = sum(record["rows"] for record in records.values())
        if set(records) != set(self._plan.parts) or rows != self._plan.rows:
            raise OutputFailed(f"{self.root}: {rows:,} rows are recorded of {self._plan.rows:,}; run again")
        with self._failing_as_output(self.target):
            if self._single and not self._is_joined(self._fingerprint, self._identities):
                self._join([self.root / records[part]["part"] for part in self._plan.parts])
            if self._single:
                for record in records.values():
                    (self.root / record["part"]).unlink(missing_ok=True)
            write_json(self.root / SUCCESS, {"fingerprint": self._fingerprint, "inputs": self._identities, **summary})

    def _refuse_foreign(self, overwrite: bool) -> None:
        """Never write among, or clear away, what is not tfbatch's own."""
        nearest = next(parent for parent in self.root.absolute().parents if parent.exists())
        if not nearest.is_dir():
            raise OutputRefused(f"output {self.root} cannot be used: {nearest} is not a folder")
        ours = self._state.is_dir()
        if self._single and self.target.exists() and not self._is_joined() and not overwrite:
            raise OutputRefused(f"output {self.target} exists; --overwrite replaces it")
        if self.root.exists() and not self.root.is_dir():
            raise OutputRefused(f"output {self.root} exists and is not a folder")
        if self.root.is_dir() and not ours and any(self.root.iterdir()):
            raise OutputRefused(f"output {self.root} holds files that are not tfbatch's; choose another with -o")

    def _take_lock(self) -> None:
        path = self._state / "lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 1000).decode(errors="replace").strip()
            raise TryAgain(f"output {self.root} is being written by {holder or 'another process'}") from None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())

    def _clear(self) -> None:
        """Remove what earlier jobs wrote here, parts that were never recorded too, and nothing else."""
        (self.root / SUCCESS).unlink(missing_ok=True)
        others = {state.parent for state in self.root.rglob("_tfbatch") if state != self._state}
        for path in list(self.root.rglob("part-*.parquet")):
            if PART_NAME.fullmatch(path.name) and others.isdisjoint(path.parents):
                path.unlink()
        for path in (self._done, self._temporary, self._state / "run.json"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._done.mkdir()
        if entries := self._joined():  # the target stays ours, but is no job's result any more
            write_json(self._state / JOINED, {"files": [{**entry, "fingerprint": None} for entry in entries]})

    def _check_run(self) -> None:
        """Refuse to mix two jobs in one folder."""
        try:
            earlier = json.loads((self._state / "run.json").read_bytes())
            facts, inputs = earlier["facts"], earlier["inputs"]
            if not any(self._done.iterdir()):
                return  # nothing was finished that this job could be mixed with
        except (FileNotFoundError, NotADirectoryError):
            return
        except (ValueError, KeyError, TypeError):
            raise BadConfiguration(
                f"{self._state / 'run.json'} cannot be read; --overwrite starts this output anew"
            ) from None
        changed = [name for name in self._run["facts"] if facts.get(name) != self._run["facts"][name]]
        if [file["identity"] for file in inputs] != self._identities:
            changed.append("input files")
        if changed:
            raise BadConfiguration(
                f"output {self.target} was begun with another {', another '.join(changed)}. "
                f"Choose another folder with -o, or start this one anew with --overwrite."
            )

    def _commit(self, part: Part, writer: PartWriter) -> Record:
        """Give a finished file its name, then record it."""
        source = self._plan.files[part.file]
        check_unchanged(source)
        name = part.name(self._fingerprint)
        record = {
            "part": name,
            "rows": writer.rows,
            "errors": self._errors,
            "bytes": writer.path.stat().st_size,
            "sha256": sha256(writer.path),
        }
        final = self.root / name
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(writer.path, final, follow_symlinks=False)
            writer.path.unlink()
        except FileExistsError:  # linked before a crash, but not recorded: it is this very part
            writer.path.replace(final)
        sync_folder(final.parent)
        write_json(self._record_path(part), record)
        return record

    def _join(self, parts: list[Path]) -> None:
        """All parts in one file, row group by row group, put in place by one rename."""
        joined = PartWriter(self._temporary / self.target.name, self._schema)
        try:
            for path in parts:
                with pq.ParquetFile(path) as file:
                    for index in range(file.num_row_groups):
                        joined.append(file.read_row_group(index))
            joined.finish()
        except BaseException:
            joined.drop()
            raise
        status = joined.path.stat()
        entry = {
            "bytes": status.st_size,
            "inode": status.st_ino,
            "fingerprint": self._fingerprint,
            "inputs": self._identities,
        }
        # The entry before stays: until the rename, the file in place is the one it describes.
        write_json(self._state / JOINED, {"files": [*self._joined()[-1:], entry]})
        joined.path.replace(self.target)
        sync_folder(self.target.parent)

    def _is_joined(self, *job: object) -> bool:
        """Whether the file at a single target was put there: by any job, or by that of this
        fingerprint and these inputs."""
        if not self._single or not self.target.exists():
            return False
        status = self.target.stat()
        return any(
            (entry["bytes"], entry["inode"]) == (status.st_size, status.st_ino)
            and (not job or (entry["fingerprint"], entry["inputs"]) == job)
            for entry in self._joined()
        )

    def _joined(self) -> list[Record]:
        """The files that were put at the target, the newest last."""
        try:
            entries: list[Record] = json.loads((self._state / JOINED).read_bytes())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return entries

    def _record_path(self, part: Part) -> Path:
        return self._done / (Path(part.name(self._fingerprint)).name + ".json")

    @contextmanager
    def _failing_as_output(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise OutputFailed(f"writing to {path} failed: {reason}") from error


def check_unchanged(source: InputFile) -> None:
    """Refuse a part whose input file was replaced while it was read."""
    try:
        found = input_identity(source.path)
    except OSError as error:
        raise BadInput(f"{source.path} went away while it was read: {error.strerror}") from error
    if found != source.identity:
        raise BadInput(f"{source.path} was changed while it was read; run again to score it as it is now")
