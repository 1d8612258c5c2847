"""Parquet to windows, in bounded memory however large a file or a row group is."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.batches import Window
from tfbatch.errors import BadInput
from tfbatch.plan import InputFile, Part, Plan, first_line

WINDOW_BYTES = 16 << 20
READ_BUFFER = 1 << 20


def read_windows(plan: Plan, parts: Sequence[Part], columns: list[str], rows: int) -> Iterator[Window]:
    """The rows of some parts in order, as windows of at most `rows` rows and about 16 MiB.

    Each file is read once from its first wanted row group to its last. A part without rows is one
    empty window, so that it too is written.

    Raises:
        BadInput: a page that cannot be read, or fewer rows than the footer promises.
    """
    for index, group in groupby(parts, key=lambda part: part.file):
        wanted = list(group)
        try:
            yield from _read_file(plan.files[index], wanted, columns, rows)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{plan.files[index].path} cannot be read: {first_line(error)}") from error


def _read_file(source: InputFile, parts: list[Part], columns: list[str], rows: int) -> Iterator[Window]:
    with pq.ParquetFile(
        source.path, pre_buffer=False, buffer_size=READ_BUFFER, page_checksum_verification=True
    ) as file:
        size = min(rows, _rows_per_window(file.metadata))
        for part in parts:
            if part.rows == 0:
                schema = pa.schema([field for field in source.schema if field.name in columns])
                yield Window(part=part, first=part.first, rows=pa.RecordBatch.from_pylist([], schema=schema))
        delivered = 0
        for first, groups in _wanted_row_groups(file.metadata, parts, rows):
            position = first
            for batch in file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
                for window in _split(batch, position, parts):
                    delivered += window.rows.num_rows
                    yield window
                position += batch.num_rows
    promised = sum(part.rows for part in parts)
    if delivered != promised:
        raise BadInput(f"{source.path}: the footer promises {promised:,} of these rows, the pages hold {delivered:,}")


def _rows_per_window(metadata: pq.FileMetaData) -> int:
    """Rows that take about WINDOW_BYTES, by the widest row group's own word."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, int(WINDOW_BYTES / max(widest, 1.0)))


def _wanted_row_groups(metadata: pq.FileMetaData, parts: list[Part], rows: int) -> Iterator[tuple[int, list[int]]]:
    """The row groups to read together, each lot with its first row, where some part wants them.

    Small row groups are read together until they hold `rows` rows. The lots are counted from the
    start of the file whatever parts are wanted: a part gets the same windows, and so the same
    batches and the same bytes, in a job that starts in the middle as in one that does not.
    """
    lot: list[int] = []
    first = stop = 0
    for index in range(metadata.num_row_groups):
        lot.append(index)
        stop += metadata.row_group(index).num_rows
        if stop - first >= rows or index == metadata.num_row_groups - 1:
            if any(part.first < stop and first < part.stop for part in parts):
                yield first, lot
            lot, first = [], stop


def _split(batch: pa.RecordBatch, position: int, parts: list[Part]) -> Iterator[Window]:
    """The slices of a record batch that belong to parts."""
    for part in parts:
        first, stop = max(part.first, position), min(part.stop, position + batch.num_rows)
        if first < stop:
            yield Window(part=part, first=first, rows=batch.slice(first - position, stop - first))
