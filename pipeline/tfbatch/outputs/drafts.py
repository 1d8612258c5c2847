"""Parts on their way into an output: written to its spool, then given their names. They count once they
are recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tfbatch.errors import BadInput, OutputFailed, first_line
from tfbatch.inputs.sources import unreadable
from tfbatch.outputs.claim import Record
from tfbatch.outputs.image_files import ImageFiles, ImageSink
from tfbatch.outputs.storage import Storage
from tfbatch.plan import InputFile, Part, Plan
from tfbatch.writer import PartWriter


@dataclass
class Draft:
    """A part that is written."""

    part: Part
    writer: PartWriter
    images: ImageFiles | None
    errors: int = 0
    batch_tokens: int | None = None

    def drop(self) -> None:
        self.writer.drop()
        if self.images is not None:
            self.images.drop()


class Drafts:
    """Writes parts of a plan, one after the other, for whoever holds the storage.

    `target` is what messages call the output; `sink` says which columns' pictures go to files.
    """

    def __init__(
        self, target: str, storage: Storage, plan: Plan, schema: pa.Schema, fingerprint: str, sink: ImageSink | None
    ) -> None:
        self._target = target
        self._storage = storage
        self._plan = plan
        self._schema = schema
        self._fingerprint = fingerprint
        self._sink = sink
        self._draft: Draft | None = None

    def append(self, part: Part, table: pa.Table, errors: int, *, batch_tokens: int | None = None) -> Record | None:
        """Add the next rows of a part, some with errors.

        Returns:
            With the last ones, when the part has its name, the record that will make it count.

        Raises:
            OutputFailed: the disk or the store fails.
            BadInput: the input file was replaced while it was read.
            TryAgain: the output is held no more.
        """
        with failing_as_output(self._target, self._storage):
            draft = self._draft = self._draft or self._begin(part)
            assert draft.part == part
            if draft.images is not None:
                table = draft.images.take_out(table, part.first + draft.writer.rows, self._schema)
            draft.writer.append(table)
            draft.errors += errors
            draft.batch_tokens = batch_tokens
            if draft.writer.rows < part.rows:
                return None
            draft.writer.finish()
            record = self._publish(part, draft)
            self._draft = None
            return record

    def drop(self) -> None:
        """Forget the part being written."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.drop()

    def _begin(self, part: Part) -> Draft:
        """Open a part's file, and the folder of its pictures."""
        self._storage.ensure_held()  # else the spool is another's by now, or gone
        name = Path(part.name(self._fingerprint)).name
        writer = PartWriter(self._storage.spool / name, self._schema)
        images = None
        if self._sink is not None:
            images = ImageFiles(self._sink, self._storage, Path(name).stem)
        return Draft(part=part, writer=writer, images=images)

    def _publish(self, part: Part, draft: Draft) -> Record:
        """Give a finished file and its pictures their names."""
        writer = draft.writer
        self._storage.ensure_held()
        check_unchanged(self._plan.files[part.file])
        record: Record = {
            "part": part.name(self._fingerprint),
            "rows": writer.rows,
            "errors": draft.errors,
            "batch_tokens": draft.batch_tokens,
            "images": draft.images and draft.images.commit(),
            "bytes": writer.path.stat().st_size,
            "sha256": writer.sha256,
        }
        self._storage.publish(writer.path, record["part"])
        return record


@contextmanager
def failing_as_output(target: str, storage: Storage) -> Iterator[None]:
    """What a disk or a store says, as an error of the output's; where that is held no more it says so for that."""
    try:
        try:
            yield
        except OSError:
            storage.ensure_held()
            raise
    except MemoryError:  # which Arrow has as an exception of its own too
        raise
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputFailed(f"writing to {target} failed: {reason}") from error


def check_unchanged(file: InputFile) -> None:
    """Refuse a part whose input file was replaced while it was read."""
    try:
        found = file.source.identity()
    except OSError as error:
        raise unreadable(file.source, "went away while it was read", error) from error
    if found != file.identity:
        raise BadInput(
            f"{file.source} was changed while it was read; to score it as it is now start anew with --overwrite, or "
            f"choose another output with -o"
        )
