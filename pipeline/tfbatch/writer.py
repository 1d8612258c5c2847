"""Files that are there whole or not at all."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.errors import OutputFailed

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 3 << 20  # a row group ends with the rows that reach it
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC  # a file that was not there


class PartWriter:
    """A Parquet file under a temporary name."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        dictionaries = repeating(schema)
        self._file = os.fdopen(os.open(path, NEW, 0o644), "wb")
        self._parquet = pq.ParquetWriter(
            self._file, schema, compression="zstd", use_dictionary=dictionaries, write_page_checksum=True
        )

    def append(self, table: pa.Table) -> None:
        """Add rows; they reach the file a row group at a time."""
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def finish(self) -> None:
        """End the file and sync it.

        Raises:
            OutputFailed: the file does not hold the rows it was given.
        """
        self._write_row_group()
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if (held := pq.read_metadata(self.path).num_rows) != self.rows:
            raise OutputFailed(f"{self.path} holds {held:,} rows of {self.rows:,}; run again")

    def drop(self) -> None:
        """Forget the file."""
        self._waiting = []
        self._parquet.is_open = False  # else its destructor writes a footer
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what is still in its buffer may be what did not fit on the disk
            self._file.close()

    def _write_row_group(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting).unify_dictionaries()
            self._waiting = []
            self._waiting_rows = self._waiting_bytes = 0
            self._parquet.write_table(table, row_group_size=max(table.num_rows, 1))


def repeating(schema: pa.Schema) -> list[str]:
    """The leaf columns, by their paths, that may gain by a dictionary: all but lists of floating-point numbers.
    Each row group of embeddings would begin with a megabyte of numbers that are not found again."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.remove_metadata().empty_table(), sink)
    leaves = pq.ParquetFile(sink.getvalue()).schema
    return [leaf.path for leaf in leaves if not (is_floating(leaf) and leaf.max_repetition_level)]


def is_floating(leaf: pq.ColumnSchema) -> bool:
    """Whether a leaf column holds floating-point numbers, of whatever precision."""
    return leaf.physical_type in ("FLOAT", "DOUBLE") or leaf.logical_type.type == "FLOAT16"


def to_json(content: dict[str, Any]) -> str:
    """The form of all small files that tfbatch keeps."""
    return json.dumps(content, indent=1) + "\n"


def replace_file(path: Path, text: str, *, spool: Path) -> None:
    """Put a small file in the place of what is there, whole or not at all, and sync it.

    It is written in the spool, a folder of the same disk that whoever is killed leaves it in.
    """
    temporary = spool / f".{path.name}.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, NEW, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, and make their names durable."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
