"""The output folder: parts that are complete or absent, and which of them are finished.

    OUT/part-<file>-<first row>-<last row>-<input id>-<fingerprint>.parquet
    OUT/images/part-.../         its pictures, where they go to files
    OUT/_tfbatch/run.json        what this folder is the output of
    OUT/_tfbatch/lock            held while a job writes here
    OUT/_tfbatch/done/*.json     one record a part: the part is finished when this exists
    OUT/_tfbatch/tmp/            parts being written
    OUT/_tfbatch/contact_sheet.png
    OUT/_SUCCESS                 last: all parts are there

A part is a pure function of its input rows and the job's facts, so writing it again is harmless.
It is written under a temporary name, since pyarrow leaves a valid, short file behind when it is
interrupted, then synced, linked to its name, and recorded: the record is the commit point. The
folder of its pictures has its name before that.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tfbatch.bundle import sha256
from tfbatch.claim import SUCCESS, Claim, Record
from tfbatch.contact_sheet import ContactSheet
from tfbatch.errors import BadInput, OutputFailed, OutputRefused, first_line
from tfbatch.image_files import ImageFiles, ImageSink, are_there
from tfbatch.joined import JoinedFile
from tfbatch.plan import InputFile, Part, Plan, input_identity
from tfbatch.writer import PartWriter, sync_folder, write_json


@dataclass
class Draft:
    """The part being written."""

    writer: PartWriter
    images: ImageFiles | None
    errors: int = 0

    def drop(self) -> None:
        self.writer.drop()
        if self.images is not None:
            self.images.drop()


class Output:
    """An output folder, held by this process from `open` to `close`.

    `target` is a folder, or one `.parquet` file: then the parts lie in `<target>.tfbatch` until
    `finish` joins them. `sink` says which columns' pictures go to files. With `verify` what is
    recorded counts as finished only if it has the recorded hashes.
    """

    def __init__(
        self,
        target: Path,
        plan: Plan,
        schema: pa.Schema,
        facts: Record,
        fingerprint: str,
        sink: ImageSink | None,
        *,
        verify: bool = False,
    ) -> None:
        single = target.suffix == ".parquet" and not target.is_dir()
        self.target = target
        self.root = target.with_name(target.name + ".tfbatch") if single else target
        self._plan = plan
        self._schema = schema
        self._fingerprint = fingerprint
        self._identities = [file.identity for file in plan.files]
        inputs = [{"path": str(file.path), "rows": file.rows, "identity": file.identity} for file in plan.files]
        self._claim = Claim(self.root, {"fingerprint": fingerprint, "facts": facts, "inputs": inputs})
        record = self._claim.state / "joined.json"
        self._file = JoinedFile(target, record, [fingerprint, self._identities]) if single else None
        self._sink = sink
        self._verify = verify
        self._draft: Draft | None = None

    def check(self, *, overwrite: bool) -> None:
        """Refuse what `open` would refuse, lock and disk apart, and touch nothing."""
        if self._file and self.target.exists() and not self._file.is_ours() and not overwrite:
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
        found = {}
        for part in self._plan.parts:
            try:
                record = json.loads(self._record_path(part).read_bytes())
                fits = (record["part"], record["rows"]) == (part.name(self._fingerprint), part.rows)
                if fits and isinstance(record["errors"], int) and (joined or self._is_there(record)):
                    found[part] = record
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    @property
    def has_contact_sheet(self) -> bool:
        return self._claim.contact_sheet.exists()

    def keep_contact_sheet(self, sheet: ContactSheet) -> None:
        """Draw a run's contact sheet in the folder."""
        with self._failing_as_output(self.root):
            sheet.save(self._claim.contact_sheet)

    def success(self) -> Record | None:
        """What `_SUCCESS` says, if it is there and is of this job."""
        try:
            content: Record = json.loads((self.root / SUCCESS).read_bytes())
        except (OSError, ValueError):
            return None
        if content.get("fingerprint") != self._fingerprint or content.get("inputs") != self._identities:
            return None
        if self._file and not self._file.is_this_jobs():
            return None
        return content

    def is_finished(self) -> bool:
        """Whether this very job is done and all of its parts are still there."""
        return self.success() is not None and len(self.records()) == len(self._plan.parts)

    def append(self, part: Part, table: pa.Table, errors: int) -> Record | None:
        """Add the next rows of a part, some with errors; returns its record when they were the last."""
        with self._failing_as_output(self.root):
            draft = self._draft = self._draft or self._begin(part)
            if draft.images is not None:
                table = draft.images.take_out(table, part.first + draft.writer.rows, self._schema)
            draft.writer.append(table)
            draft.errors += errors
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
            raise OutputFailed(f"{self.root}: {rows:,} rows are recorded of {self._plan.rows:,}; run again")
        with self._failing_as_output(self.target):
            if self._file:
                parts = [self.root / records[part]["part"] for part in self._plan.parts]
                if not self._file.is_this_jobs():
                    self._file.join(parts, self._claim.temporary, self._schema)
                for path in parts:
                    path.unlink(missing_ok=True)
            write_json(self.root / SUCCESS, {"fingerprint": self._fingerprint, "inputs": self._identities, **summary})

    def _begin(self, part: Part) -> Draft:
        """Open a part's file, and the folder of its pictures."""
        name = Path(part.name(self._fingerprint)).name
        writer = PartWriter(self._claim.temporary / name, self._schema)
        images = None
        if self._sink is not None:
            images = ImageFiles(self._sink, self.root, self._claim.temporary, Path(name).stem)
        return Draft(writer=writer, images=images)

    def _commit(self, part: Part, draft: Draft) -> Record:
        """Give a finished file and its pictures their names, then record it."""
        writer = draft.writer
        source = self._plan.files[part.file]
        check_unchanged(source)
        name = part.name(self._fingerprint)
        record = {
            "part": name,
            "rows": writer.rows,
            "errors": draft.errors,
            "images": draft.images and draft.images.commit(),
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

    def _is_there(self, record: Record) -> bool:
        """Whether a recorded part is in the folder, with its pictures; with `verify`, byte for byte."""
        path, pictures = self.root / record["part"], record["images"]
        if path.stat().st_size != record["bytes"] or (self._verify and sha256(path) != record["sha256"]):
            return False
        return pictures is None or are_there(self.root, pictures, verify=self._verify)

    def _record_path(self, part: Part) -> Path:
        return self._claim.done / (Path(part.name(self._fingerprint)).name + ".json")

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
