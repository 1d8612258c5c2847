"""An output: parts that are complete or absent, and which of them are finished.

    OUT/part-<file>-<first row>-<last row>-<input id>-<fingerprint>.parquet
    OUT/images/part-.../         its pictures, where they go to files
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfbatch.bundle import sha256
from tfbatch.claim import CONTACT_SHEET, DONE, SUCCESS, Claim, Record
from tfbatch.contact_sheet import ContactSheet
from tfbatch.errors import BadInput, OutputFailed, OutputRefused, first_line
from tfbatch.folder import Folder
from tfbatch.image_files import ImageFiles, ImageSink, are_there
from tfbatch.joined import JoinedFile
from tfbatch.plan import InputFile, Part, Plan
from tfbatch.sources import scheme_of, unreadable
from tfbatch.stages import overlap
from tfbatch.storage import Storage, is_one_file
from tfbatch.writer import PartWriter, to_json

READERS = 8  # records read at once: from an object store each takes a while


@dataclass
class Draft:
    """The part being written."""

    writer: PartWriter
    images: ImageFiles | None
    errors: int = 0
    batch_tokens: int | None = None

    def drop(self) -> None:
        self.writer.drop()
        if self.images is not None:
            self.images.drop()


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
        self._identities = [file.identity for file in plan.files]
        self._file = None
        self._storage: Storage
        if is_one_file(target):
            self._storage = Folder(Path(f"{target}.tfbatch"), beat)
            self._file = JoinedFile(Path(target), self._storage, [fingerprint, self._identities])
        else:
            self._storage = open_storage(target, beat)
        inputs = [{"path": str(file.source), "rows": file.rows, "identity": file.identity} for file in plan.files]
        self._claim = Claim(self._storage, {"fingerprint": fingerprint, "facts": facts, "inputs": inputs})
        self._sink = sink
        self._verify = verify
        self._draft: Draft | None = None

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
            if self._draft is not None:
                self._draft.drop()
        finally:
            self._draft = None
            self._claim.release()

    def records(self) -> dict[Part, Record]:
        """The finished parts of the plan: recorded, and there as they were recorded."""
        file = self._file
        joined = file is not None and file.is_this_jobs() and not (self._verify and not file.is_intact())

        def read(part: Part) -> Record | None:
            self._storage.beat()
            try:
                record: Record = json.loads(self._storage.read(self._record_name(part)))
                fits = (record["part"], record["rows"]) == (part.name(self._fingerprint), part.rows)
                counts = fits and isinstance(record["errors"], int) and (joined or self._is_there(record))
            except (OSError, ValueError, KeyError, TypeError):
                return None
            return record if counts else None

        records = overlap(read, self._plan.parts, workers=READERS, ahead=4 * READERS)
        return {part: record for part, record in zip(self._plan.parts, records, strict=True) if record is not None}

    @property
    def has_contact_sheet(self) -> bool:
        try:
            return self._storage.size(CONTACT_SHEET) > 0
        except OSError:
            return False

    def keep_contact_sheet(self, sheet: ContactSheet) -> None:
        """Draw a run's contact sheet in the folder."""
        with self._failing_as_output():
            self._storage.ensure_held()
            drawn = self._storage.spool / "contact_sheet.png"
            sheet.save(drawn)
            self._storage.publish(drawn, CONTACT_SHEET)

    def success(self) -> Record | None:
        """What `_SUCCESS` says, if it is there and is of this job."""
        try:
            content: Any = json.loads(self._storage.read(SUCCESS))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict):
            return None
        if content.get("fingerprint") != self._fingerprint or content.get("inputs") != self._identities:
            return None
        if self._file and not self._file.is_this_jobs():
            return None
        return dict(content)

    def is_finished(self) -> bool:
        """Whether this very job is done and all of its parts are still there."""
        return self.success() is not None and len(self.records()) == len(self._plan.parts)

    def append(self, part: Part, table: pa.Table, errors: int, *, batch_tokens: int | None = None) -> Record | None:
        """Add the next rows of a part, some with errors; returns its record when they were the last."""
        with self._failing_as_output():
            draft = self._draft = self._draft or self._begin(part)
            if draft.images is not None:
                table = draft.images.take_out(table, part.first + draft.writer.rows, self._schema)
            draft.writer.append(table)
            draft.errors += errors
            draft.batch_tokens = batch_tokens
            if draft.writer.rows < part.rows:
                return None
            draft.writer.finish()
            record = self._commit(part, draft)
            self._draft = None
            return record

    def finish(self, records: dict[Part, Record], summary: Record) -> None:
        """Write `_SUCCESS`, after joining the parts where one file was asked for.

        Raises:
            OutputFailed: the records do not add up to the plan.
        """
        rows = sum(record["rows"] for record in records.values())
        if set(records) != set(self._plan.parts) or rows != self._plan.rows:
            raise OutputFailed(f"{self._storage.name}: {rows:,} rows are recorded of {self._plan.rows:,}; run again")
        with self._failing_as_output():
            if self._file:
                self._join(self._file, [records[part]["part"] for part in self._plan.parts])
            success = {"fingerprint": self._fingerprint, "inputs": self._identities, **summary}
            self._storage.ensure_held()
            self._storage.write(SUCCESS, to_json(success))

    def _join(self, file: JoinedFile, names: list[str]) -> None:
        """Put the one file in its place, if it is not there since before a crash, and drop its parts."""
        if not file.is_this_jobs():
            file.join(names, self._schema)
        self._storage.remove(*names)

    def _begin(self, part: Part) -> Draft:
        """Open a part's file, and the folder of its pictures."""
        name = Path(part.name(self._fingerprint)).name
        writer = PartWriter(self._storage.spool / name, self._schema)
        images = None
        if self._sink is not None:
            images = ImageFiles(self._sink, self._storage, Path(name).stem)
        return Draft(writer=writer, images=images)

    def _commit(self, part: Part, draft: Draft) -> Record:
        """Give a finished file and its pictures their names, then record it."""
        writer = draft.writer
        source = self._plan.files[part.file]
        self._storage.ensure_held()
        check_unchanged(source)
        name = part.name(self._fingerprint)
        record = {
            "part": name,
            "rows": writer.rows,
            "errors": draft.errors,
            "batch_tokens": draft.batch_tokens,
            "images": draft.images and draft.images.commit(),
            "bytes": writer.path.stat().st_size,
            "sha256": sha256(writer.path, self._storage.beat),
        }
        self._storage.publish(writer.path, name)
        self._storage.ensure_held()
        self._storage.write(self._record_name(part), to_json(record))
        return record

    def _is_there(self, record: Record) -> bool:
        """Whether a recorded part is in the folder, with its pictures; with `verify`, byte for byte."""
        name, pictures = record["part"], record["images"]
        if self._storage.size(name) != record["bytes"]:
            return False
        if self._verify and self._storage.sha256(name) != record["sha256"]:
            return False
        return pictures is None or are_there(self._storage, pictures, verify=self._verify)

    def _record_name(self, part: Part) -> str:
        return f"{DONE}/{Path(part.name(self._fingerprint)).name}.json"

    @contextmanager
    def _failing_as_output(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise OutputFailed(f"writing to {self.target} failed: {reason}") from error


def open_storage(output: str, beat: Callable[[], None]) -> Storage:
    """The storage of an output; nothing is touched yet.

    Raises:
        BadConfiguration: an object store, and the package for it is not installed.
    """
    if scheme_of(output) is None:
        return Folder(Path(output), beat)
    from tfbatch.bucket import Bucket  # which needs obstore

    return Bucket(output, beat)


def check_unchanged(file: InputFile) -> None:
    """Refuse a part whose input file was replaced while it was read."""
    try:
        found = file.source.identity()
    except OSError as error:
        raise unreadable(file.source, "went away while it was read", error) from error
    if found != file.identity:
        raise BadInput(f"{file.source} was changed while it was read; run again to score it as it is now")
