"""Parquet to windows, in bounded memory however large a file or a row group is."""

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import groupby
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.batches import Window
from tfbatch.errors import BadInput
from tfbatch.inputs.pages import Chunk, Contradiction, check_chunk, read_chunks
from tfbatch.inputs.sources import unreadable
from tfbatch.plan import INT96_UNIT, InputFile, Part, Plan, empty_table

BATCH_ROWS = 64  # decoded at once, before it is known how large they are; more where each has a whole dictionary
SHARED = 64 << 20  # bytes that the rows decoded at once may take where each holds all that they can share
READ_BUFFER = 1 << 20

Weigh = Callable[[pa.RecordBatch], int]


def read_windows(
    plan: Plan,
    parts: Sequence[Part],
    columns: list[str],
    rows: int,
    size: int,
    *,
    carried: Collection[str] = (),
    wide: int = 0,
) -> Generator[Window, None, None]:
    """The rows of some parts in order, as windows of at most `rows` rows and about `size` bytes.

    Columns that are `carried` along are read too: `size` bounds the others, and `wide`, where that is more,
    all together, so that a window of a wide table has more rows to sort by length. Each file is read once,
    from its first wanted row group on. A part without rows is one empty window, so that it too is written.

    Raises:
        TryAgain: an object store is not reached.
        BadInput: a page that cannot be read or would take too much memory, or other rows than the
            footer promises.
    """

    def weigh(batch: pa.RecordBatch) -> int:
        taken: int = batch.nbytes
        own: int = taken - sum(batch.column(name).nbytes for name in carried)
        return max(own, taken * size // max(size, wide))

    for index, group in groupby(parts, key=lambda part: part.file):
        wanted = list(group)
        try:
            yield from _read_file(plan.files[index], wanted, [*columns, *carried], rows, size, weigh)
        except (OSError, pa.ArrowException, Contradiction) as error:
            raise unreadable(plan.files[index].source, "cannot be read", error) from error


def _read_file(
    source: InputFile, parts: list[Part], columns: list[str], rows: int, size: int, weigh: Weigh
) -> Iterator[Window]:
    schema = pa.schema([field for field in source.schema if field.name in columns])
    for part in parts:
        if part.rows == 0:
            yield Window(part=part, first=part.first, rows=empty_table(schema))
    delivered = 0
    with (
        source.source.open() as declared,
        source.source.open() as opened,
        pq.ParquetFile(
            opened,
            pre_buffer=False,
            buffer_size=READ_BUFFER,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=INT96_UNIT,
        ) as file,
    ):
        chunks = read_chunks(declared)
        alone = any(_has_dictionary(child) for field in schema for child in _children(field.type))
        few = rows if any(_has_dictionary(field.type) for field in schema) else BATCH_ROWS
        for first, groups in _wanted_row_groups(file.metadata, parts, 1 if alone else rows):
            chosen = [(leaf, chunk) for group in groups for leaf, chunk in _chosen(chunks[group], columns)]
            encoded, heaviest = _check(declared, file, chosen, schema)
            within = _rows_within(file.metadata, groups, encoded, size)
            at_once = min(rows, few, within, max(1, SHARED // max(heaviest, 1)))
            batches = file.iter_batches(at_once, row_groups=groups, columns=columns, use_threads=False)
            position = first
            for table in _gather(batches, rows, size, weigh):
                for window in _split(table, position, parts):
                    delivered += window.rows.num_rows
                    yield window
                position += table.num_rows
                if position >= parts[-1].stop:
                    break
    promised = sum(part.rows for part in parts)
    if delivered != promised:
        raise BadInput(f"{source.source}: the footer promises {promised:,} of these rows, the pages hold {delivered:,}")


def _gather(batches: Iterator[pa.RecordBatch], rows: int, size: int, weigh: Weigh) -> Iterator[pa.Table]:
    """Small batches together, up to `rows` rows or what weighs `size`: how large decoded rows are is
    known only then, since a footer tells the size of encoded ones."""
    waiting: list[pa.RecordBatch] = []
    held_rows = held = 0
    for batch in batches:
        weight = weigh(batch)
        if waiting and (held_rows + batch.num_rows > rows or held + weight > size):
            table = _in_one_piece(waiting)
            waiting, held_rows, held = [], 0, 0  # before the rows go on, or they would be there twice meanwhile
            yield table
        waiting.append(batch)
        held_rows += batch.num_rows
        held += weight
    if waiting:
        table = _in_one_piece(waiting)
        del waiting, batch
        yield table


def _in_one_piece(batches: list[pa.RecordBatch]) -> pa.Table:
    """A table whose columns are each in one piece, which goes back whole when its rows are done with. Small ones
    would lie among all that comes and goes meanwhile, and leave holes. Dictionaries stay as they are."""
    table = pa.Table.from_batches(batches)
    if any(_has_dictionary(field.type) for field in table.schema):
        return table
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid:  # more items of lists than can be counted in one, which take next to no bytes
        return table


def _chosen(chunks: list[Chunk], columns: list[str]) -> list[tuple[int, Chunk]]:
    """The chunks of these columns, each with its leaf's number."""
    chosen = set(columns)
    return [(leaf, chunk) for leaf, chunk in enumerate(chunks) if _top_level(chunk.path, chosen)]


def _check(
    declared: BinaryIO, file: pq.ParquetFile, chosen: list[tuple[int, Chunk]], schema: pa.Schema
) -> tuple[int, int]:
    """Hold chunks to what they declare; how many bytes they take together, encoded, and at most a
    single row of one, decoded, of what rows may share. A dictionary that stays one is no row's own."""
    encoded = heaviest = 0
    kept = {field.name for field in schema if pa.types.is_dictionary(field.type)}
    for leaf, chunk in chosen:
        shared = check_chunk(declared, chunk, is_repeated=file.schema.column(leaf).max_repetition_level > 0)
        heaviest = max(heaviest, 0 if chunk.path in kept else shared)
        encoded += chunk.size
    return encoded, heaviest


def _rows_within(metadata: pq.FileMetaData, groups: list[int], encoded: int, limit: int) -> int:
    """How many rows of these row groups take `limit` bytes in the columns that are read, encoded."""
    rows: int = sum(metadata.row_group(index).num_rows for index in groups)
    return max(1, limit * rows // max(encoded, 1))


def _top_level(path: str, columns: set[str]) -> bool:
    """Whether a leaf's path (`image.bytes`) is of one of these columns, whose names may hold dots."""
    steps = path.split(".")
    return any(".".join(steps[:count]) in columns for count in range(1, len(steps) + 1))


def _children(kind: pa.DataType) -> list[pa.DataType]:
    """The types nested directly in a type."""
    return [kind.field(index).type for index in range(kind.num_fields)]


def _has_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is or holds a dictionary; nested ones cannot be read across row groups."""
    return bool(pa.types.is_dictionary(kind)) or any(_has_dictionary(child) for child in _children(kind))


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


def _split(table: pa.Table, position: int, parts: list[Part]) -> Iterator[Window]:
    """The slices of a table that belong to parts."""
    for part in parts:
        first, stop = max(part.first, position), min(part.stop, position + table.num_rows)
        if first < stop:
            yield Window(part=part, first=first, rows=table.slice(first - position, stop - first))
