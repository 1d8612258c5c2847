"""A part's Parquet file, written a row group at a time."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfbatch.errors import OutputFailed
from tfbatch.host.durable import NEW
from tfbatch.host.hashes import HashedFile
from tfbatch.plan import empty_table

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 3 << 20  # a row group ends with the rows that reach it
SAMPLED = 128  # cells that show whether compression makes bytes shorter
SAMPLE = 16 << 10  # bytes of each, its last: pictures begin with much that is not pixels
EVIDENCE = 32 << 10  # bytes of all of them, or nothing is shown
GAIN = 0.05  # of its size, that is worth the time; small PNGs become a tenth shorter, photographs nothing


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
        """Add rows, whose columns are in the order of the schema; they reach the file a row group at a time."""
        self.rows += table.num_rows
        self._waiting.append(pa.Table.from_arrays(table.columns, schema=self._schema))  # null is allowed or not there
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def finish(self) -> None:
        """End the file and sync it.

        Raises:
            OutputFailed: the file does not hold the rows it was given.
        """
        self._write_row_group().close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if (held := pq.read_metadata(self.path.absolute()).num_rows) != self.rows:
            raise OutputFailed(f"{self.path} holds {held:,} rows of {self.rows:,}; run again")

    def drop(self) -> None:
        """Forget the file."""
        self._waiting = []
        if self._parquet is not None:
            self._parquet.is_open = False  # else its destructor writes a footer
        with suppress(OSError):  # the folder may be gone
            self.path.unlink()
        with suppress(OSError):  # what is still in its buffer may be what did not fit on the disk
            self._file.close()

    def _write_row_group(self) -> pq.ParquetWriter:
        """Write the rows that wait, if any; gives what writes the file, which the first of them decide on."""
        table = pa.concat_tables([empty_table(self._schema), *self._waiting])
        self._waiting = []
        self._waiting_rows = self._waiting_bytes = 0
        writer = self._parquet = self._parquet or self._begin(table)
        for rows in in_one_dictionary(table) if table.num_rows else ():
            writer.write_table(rows, row_group_size=rows.num_rows)
        return writer

    def _begin(self, first: pa.Table) -> pq.ParquetWriter:
        leaves = leaves_of(self._schema)
        packed = {path for field, column in zip(first.schema, first.columns, strict=True)
                  for path in packed_leaves(field.name, column)}  # fmt: skip
        return pq.ParquetWriter(
            self._file,
            self._schema,
            compression={leaf.path: "none" if leaf.path in packed else "zstd" for leaf in leaves},
            use_dictionary=[leaf.path for leaf in leaves if may_repeat(leaf)],
            write_page_checksum=True,
        )


def in_one_dictionary(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of a table, all together where each column's entries fit one dictionary: a row group with more of them
    than small indices can count cannot be read."""
    try:
        yield table.unify_dictionaries()
    except pa.ArrowInvalid:
        batches = table.to_batches()
        if len(batches) == 1:
            raise
        for half in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
            yield from in_one_dictionary(pa.Table.from_batches(half))


def leaves_of(schema: pa.Schema) -> pq.ParquetSchema:
    """The columns that Parquet makes of a schema's, each with its path."""
    sink = pa.BufferOutputStream()
    pq.write_table(empty_table(schema.remove_metadata()), sink)
    return pq.ParquetFile(sink.getvalue()).schema


def packed_leaves(path: str, column: pa.ChunkedArray) -> Iterator[str]:
    """The paths of bytes that hardly become shorter by compression, as those of photographs, and would only take
    time. Bytes by themselves or in structs are judged, not those in lists, dictionaries and views."""
    if pa.types.is_struct(column.type):
        for index, field in enumerate(column.type):
            yield from packed_leaves(f"{path}.{field.name}", pc.struct_field(column, [index]))
    elif (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)) and is_packed(column):
        yield path


def is_packed(column: pa.ChunkedArray) -> bool:
    """Whether the ends of some cells of bytes, put together, become less than GAIN shorter."""
    cells = column.drop_null()
    chosen = np.random.default_rng(0).permutation(len(cells))[:SAMPLED]  # the same ones of the same rows
    ends = b"".join(pc.binary_slice(cells, -SAMPLE).take(pa.array(np.sort(chosen))).to_pylist())
    return len(ends) >= EVIDENCE and len(pa.compress(ends, "zstd", asbytes=True)) > (1 - GAIN) * len(ends)


def may_repeat(leaf: pq.ColumnSchema) -> bool:
    """Whether a leaf column may gain by a dictionary: all but lists of floating-point numbers. Each row group of
    embeddings would begin with a megabyte of numbers that are not found again."""
    return not (is_floating(leaf) and leaf.max_repetition_level)


def is_floating(leaf: pq.ColumnSchema) -> bool:
    """Whether a leaf column holds floating-point numbers, of whatever precision."""
    return leaf.physical_type in ("FLOAT", "DOUBLE") or leaf.logical_type.type == "FLOAT16"
