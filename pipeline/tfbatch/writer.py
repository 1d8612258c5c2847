"""A part's Parquet file, written a row group at a time."""

import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.errors import OutputFailed
from tfbatch.hashes import HashedFile
from tfbatch.small_files import NEW

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 3 << 20  # a row group ends with the rows that reach it
SAMPLE = 256 << 10  # bytes of rows that show what compression gains; one row at least
EVIDENT = 1_000  # bytes of a column that show anything
GAIN = 0.1  # of its size, that is worth the time


class PartWriter:
    """A Parquet file under a temporary name."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._file = HashedFile(os.open(path, NEW, 0o644))
        self._parquet: pq.ParquetWriter | None = None

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of what has been written."""
        return self._file.sha256

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
        if self._waiting:
            self._write_row_group()
        self._opened(self._schema.empty_table()).close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if (held := pq.read_metadata(self.path).num_rows) != self.rows:
            raise OutputFailed(f"{self.path} holds {held:,} rows of {self.rows:,}; run again")

    def drop(self) -> None:
        """Forget the file."""
        self._waiting = []
        if self._parquet is not None:
            self._parquet.is_open = False  # else its destructor writes a footer
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what is still in its buffer may be what did not fit on the disk
            self._file.close()

    def _write_row_group(self) -> None:
        table = pa.concat_tables(self._waiting).unify_dictionaries()
        self._waiting = []
        self._waiting_rows = self._waiting_bytes = 0
        self._opened(table).write_table(table, row_group_size=max(table.num_rows, 1))

    def _opened(self, first: pa.Table) -> pq.ParquetWriter:
        """What writes the file; how, its first rows decide."""
        if self._parquet is None:
            sample = sample_of(first)
            self._parquet = pq.ParquetWriter(
                self._file,
                self._schema,
                compression=compressions(sample),
                use_dictionary=repeating(sample.schema),
                write_page_checksum=True,
            )
        return self._parquet


def sample_of(rows: pa.Table) -> pq.FileMetaData:
    """What a file of the first of some rows is, compressed and without dictionaries."""
    few = rows.slice(0, max(1, rows.num_rows * SAMPLE // max(rows.nbytes, 1)))
    sink = pa.BufferOutputStream()
    pq.write_table(few.replace_schema_metadata(), sink, compression="zstd", use_dictionary=False)
    return pq.read_metadata(pa.BufferReader(sink.getvalue()))


def compressions(sample: pq.FileMetaData) -> dict[str, str]:
    """How each leaf column, by its path, is compressed. Bytes that hardly become shorter by it, as those of most
    pictures, stay as they are: it is most of the time that writing photographs takes."""
    found = dict.fromkeys((leaf.path for leaf in sample.schema), "zstd")
    for leaf, column in zip(sample.schema, columns_of(sample), strict=False):  # no rows, no columns
        shorter = column.total_uncompressed_size - column.total_compressed_size
        is_bytes = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
        if is_bytes and column.total_uncompressed_size > EVIDENT and shorter < GAIN * column.total_uncompressed_size:
            found[leaf.path] = "none"
    return found


def columns_of(file: pq.FileMetaData) -> list[pq.ColumnChunkMetaData]:
    """The columns of a file's first row group."""
    if not file.num_row_groups:
        return []
    group = file.row_group(0)
    return [group.column(index) for index in range(group.num_columns)]


def repeating(schema: pq.ParquetSchema) -> list[str]:
    """The leaf columns, by their paths, that may gain by a dictionary: all but lists of floating-point numbers.
    Each row group of embeddings would begin with a megabyte of numbers that are not found again."""
    return [leaf.path for leaf in schema if not (is_floating(leaf) and leaf.max_repetition_level)]


def is_floating(leaf: pq.ColumnSchema) -> bool:
    """Whether a leaf column holds floating-point numbers, of whatever precision."""
    return leaf.physical_type in ("FLOAT", "DOUBLE") or leaf.logical_type.type == "FLOAT16"
