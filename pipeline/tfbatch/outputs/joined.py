"""One output file, joined from parts: put in place by one rename, and known again by its inode."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.errors import OutputRefused
from tfbatch.host.durable import sync_folder, to_json
from tfbatch.host.hashes import sha256
from tfbatch.outputs.folder import Folder
from tfbatch.outputs.storage import STATE
from tfbatch.writer import PartWriter

RECORD = f"{STATE}/joined.json"


class JoinedFile:
    """The file at a target path; `storage` holds its parts and the record that says which file was put
    there.

    `job` names the job whose result it is: its fingerprint and the identities of its inputs.
    """

    def __init__(self, target: Path, storage: Folder, job: list[Any]) -> None:
        self.target = target
        self._storage = storage
        self._job = job
        self._before = self._in_place()

    def is_ours(self) -> bool:
        """Whether the file that is there was put there by tfbatch."""
        return bool(self._entries_in_place())

    def is_this_jobs(self) -> bool:
        """Whether the file that is there is this job's result."""
        return any(entry["job"] == self._job for entry in self._entries_in_place())

    def is_intact(self) -> bool:
        """Whether the file that is there has the bytes that were put there."""
        return any(entry["sha256"] == sha256(self.target, self._storage.beat) for entry in self._entries_in_place())

    def disown(self) -> None:
        """Keep the file as tfbatch's, but as no job's result."""
        if entries := self._entries():
            self._write([{**entry, "job": None} for entry in entries])

    def join(self, parts: list[str], schema: pa.Schema) -> None:
        """Write all parts, by their names, into one file, row group by row group, and put it in place."""
        writer = PartWriter(self._storage.spool / self.target.name, schema)
        try:
            for part in parts:
                with pq.ParquetFile(self._storage.path(part).absolute()) as file:
                    for index in range(file.num_row_groups):
                        writer.append(file.read_row_group(index))
                        self._storage.beat()
            writer.finish()
        except BaseException:
            writer.drop()
            raise
        status = writer.path.stat()
        entry = {
            "bytes": status.st_size,
            "inode": status.st_ino,
            "sha256": writer.sha256,
            "job": self._job,
        }
        there = self._in_place()
        if there is not None and there != self._before and not self.is_ours():
            raise OutputRefused(
                f"another file was put at {self.target} meanwhile; move it, and the same command, without --overwrite, "
                f"goes on from there"
            )
        # What describes the file in place stays: until the rename, however often it is tried, that is the file.
        self._write([*self._entries_in_place()[-1:], entry])
        writer.path.replace(self.target)
        sync_folder(self.target.parent)

    def _entries_in_place(self) -> list[dict[str, Any]]:
        """What is recorded of the file that is there."""
        found = self._in_place()
        return [entry for entry in self._entries() if (entry["bytes"], entry["inode"]) == found]

    def _in_place(self) -> tuple[int, int] | None:
        """The size and inode of the file that is there."""
        try:
            status = self.target.stat()
        except OSError:
            return None
        return status.st_size, status.st_ino

    def _entries(self) -> list[dict[str, Any]]:
        """The files that were put at the target, the newest last."""
        try:
            entries: list[dict[str, Any]] = list(json.loads(self._storage.read(RECORD))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return entries

    def _write(self, entries: list[dict[str, Any]]) -> None:
        self._storage.write(RECORD, to_json({"files": entries}))
