"""An output: parts that are complete or absent, and which of them are finished.

    OUT/part-<file>-<first row>-<last row>-<input id>-<fingerprint>.parquet
    OUT/_images/part-.../        its pictures, where they go to files
    OUT/_tfbatch/run.json        what this folder is the output of
    OUT/_tfbatch/lock            held while a job writes here
    OUT/_tfbatch/done/*.json     one record a part: the part is finished when this exists
    OUT/_tfbatch/tmp/            parts being written; of an object store they are in a local folder
    OUT/_tfbatch/contact_sheet.png
    OUT/_tfbatch/joined.json     which file the parts were joined to, where one was asked for
    OUT/_SUCCESS                 last: all parts are there

A part is a pure function of its input rows and the job's facts, so writing it again is harmless.
It is written to a spool, since pyarrow leaves a valid, short file behind when it is interrupted,
then published under its name, and recorded: the record is the commit point. Its pictures have
their names before that.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfbatch.errors import OutputFailed, OutputRefused, TryAgain
from tfbatch.host.durable import to_json
from tfbatch.inputs.addresses import scheme_of
from tfbatch.outputs.claim import CONTACT_SHEET, SUCCESS, Claim, Record
from tfbatch.outputs.drafts import Drafts, failing_as_output
from tfbatch.outputs.folder import Folder
from tfbatch.outputs.image_files import ImageSink
from tfbatch.outputs.joined import JoinedFile
from tfbatch.outputs.records import Records
from tfbatch.outputs.storage import Storage, is_one_file
from tfbatch.pictures.contact_sheet import ContactSheet
from tfbatch.plan import Part, Plan


class Output:
    """An output folder, held by this process from `open` to `close`.

    `target` is a folder, or one `.parquet` file: then the parts lie in `<target>.tfbatch` until
    `finish` joins them. `sink` says which columns' pictures go to files. With `verify` what is
    recorded counts as finished only if it has the recorded hashes. `beat` hears that it gets on.
    """

    def __init__(
        self,
        target: str,
        plan: Plan,
        schema: pa.Schema,
        facts: Record,
        fingerprint: str,
        sink: ImageSink | None,
        *,
        verify: bool = False,
        beat: Callable[[], None],
    ) -> None:
        self.target = target
        self._plan = plan
        self._schema = schema
        self._fingerprint = fingerprint
        self._inputs = [file.facts for file in plan.files]
        self._file = None
        self._storage = open_storage(target, beat)
        if isinstance(self._storage, Folder) and is_one_file(target):
            self._file = JoinedFile(Path(target), self._storage, [fingerprint, self._inputs])
        inputs = [{"path": str(file.source), **file.facts} for file in plan.files]
        self._claim = Claim(self._storage, {"fingerprint": fingerprint, "facts": facts, "inputs": inputs})
        self._drafts = Drafts(target, self._storage, plan, schema, fingerprint, sink)
        self._records = Records(self._storage, plan, fingerprint, verify=verify)
        self._verify = verify

    def check(self, *, overwrite: bool) -> None:
        """Refuse what `open` would refuse, lock and disk apart, and touch nothing."""
        if self._file and self._file.target.exists() and not self._file.is_ours() and not overwrite:
            raise OutputRefused(f"output {self.target} exists; --overwrite replaces it")
        self._claim.check(overwrite=overwrite)

    def open(self, *, overwrite: bool) -> None:
        """Take the folder.

        Raises:
            OutputRefused, TryAgain, BadConfiguration: see `Claim.take`.
        """
        self.check(overwrite=overwrite)
        anew = self._claim.take(overwrite=overwrite)
        if self._file and (anew or (self._verify and not self._file.is_intact())):
            self._file.disown()

    def close(self) -> None:
        """Drop the part being written and let go of the folder."""
        try:
            self._drafts.drop()
        finally:
            self._claim.release()

    def records(self) -> dict[Part, Record]:
        """The finished parts of the plan: recorded, and there as they were recorded."""
        file = self._file
        are_joined = file is not None and file.is_this_jobs() and not (self._verify and not file.is_intact())
        return self._records.read(are_joined=are_joined)

    @property
    def has_contact_sheet(self) -> bool:
        try:
            return self._storage.size(CONTACT_SHEET) > 0
        except OSError:
            return False

    def keep_contact_sheet(self, sheet: ContactSheet) -> None:
        """Draw a run's contact sheet in the folder."""
        with failing_as_output(self.target, self._storage):
            self._storage.ensure_held()
            drawn = self._storage.spool / "contact_sheet.png"
            sheet.save(drawn)
            self._storage.publish(drawn, CONTACT_SHEET)

    def is_finished(self) -> bool:
        """Whether this very job is done and all of its parts are still there."""
        return self._has_success() and len(self.records()) == len(self._plan.parts)

    def _has_success(self) -> bool:
        """Whether `_SUCCESS` is there and of this job."""
        try:
            content: Any = json.loads(self._storage.read(SUCCESS))
        except (OSError, ValueError):
            return False
        if not isinstance(content, dict):
            return False
        if content.get("fingerprint") != self._fingerprint or content.get("inputs") != self._inputs:
            return False
        return self._file is None or self._file.is_this_jobs()

    def append(self, part: Part, table: pa.Table, errors: int, *, batch_tokens: int | None = None) -> Record | None:
        """Add the next rows of a part; the record, once they were the last ones and it counts.

        Raises:
            OutputFailed, BadInput: see `Drafts.append`.
            TryAgain: the output is held no more.
        """
        record = self._drafts.append(part, table, errors, batch_tokens=batch_tokens)
        if record is not None:
            self.record(part, record)
        return record

    def record(self, part: Part, record: Record) -> None:
        """Make a part count that has its name."""
        with failing_as_output(self.target, self._storage):
            self._storage.ensure_held()
            self._records.write(part, record)

    @property
    def descriptors(self) -> list[int]:
        """What keeps the output held as long as any process has them."""
        return self._storage.descriptors

    def ensure_held(self) -> None:
        """Look for a process that works for this one, see `Storage.ensure_held`."""
        with failing_as_output(self.target, self._storage):
            self._storage.ensure_held()

    def spool_of(self, name: str) -> Path:
        """Where a process that works for this one writes."""
        return self._storage.spool / name

    def clear_spool(self, name: str) -> None:
        """Forget what it was writing."""
        shutil.rmtree(self.spool_of(name), ignore_errors=True)

    def finish(self, records: dict[Part, Record], summary: Record) -> None:
        """Write `_SUCCESS`, after joining the parts where one file was asked for.

        Raises:
            OutputFailed: the records do not add up to the plan.
            TryAgain: somebody has taken parts away.
        """
        rows = sum(record["rows"] for record in records.values())
        if set(records) != set(self._plan.parts) or rows != self._plan.rows:
            raise OutputFailed(f"{self._storage.name}: {rows:,} rows are recorded of {self._plan.rows:,}; run again")
        with failing_as_output(self.target, self._storage):
            if self._file:
                self._join(self._file, [records[part]["part"] for part in self._plan.parts])
            elif missing := self._records.missing(records):
                more = f", and {len(missing) - 1:,} more," if len(missing) > 1 else ""
                raise TryAgain(
                    f"{missing[0]}{more} in output {self.target} is gone or changed since this job wrote it; the same "
                    f"command makes it anew"
                )
            success = {"fingerprint": self._fingerprint, "inputs": self._inputs, **summary}
            self._storage.ensure_held()
            self._storage.write(SUCCESS, to_json(success))

    def _join(self, file: JoinedFile, names: list[str]) -> None:
        """Put the one file in its place, if it is not there since before a crash, and drop its parts."""
        if not file.is_this_jobs():
            file.join(names, self._schema)
        self._storage.remove(*names)


def open_storage(output: str, beat: Callable[[], None]) -> Storage:
    """The storage of an output, or of the parts of one that is a file; nothing is touched yet.

    Raises:
        BadConfiguration: an object store, and the package for it is not installed.
    """
    if scheme_of(output) is None:
        return Folder(Path(f"{output}.tfbatch" if is_one_file(output) else output), beat)
    from tfbatch.outputs.bucket import Bucket  # which needs obstore

    return Bucket(output, beat)
