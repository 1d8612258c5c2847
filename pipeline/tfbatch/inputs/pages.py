"""What a Parquet file declares of itself, held against what it holds, before pyarrow reads it.

A page is decompressed to the size that its header says, of up to 2 GB, and a footer may promise
other rows than the pages hold: pyarrow believes both. Here the headers of pages are read, a few
hundred bytes of each, and none of their content.
Source: parquet.thrift of the Parquet format.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from tfbatch.inputs.thrift import Fields, read_struct

LARGE = 128 << 20  # bytes of a page that may be of any few; pages are written at about one million
EXPANSION = 100  # times its bytes in the file that a larger page may take; text reaches ten, logs fifty
LIST_ITEM = 8  # bytes that an item of a list takes in memory, about
HEADER, LONGEST_HEADER = 512, 1 << 20  # bytes read at once for a page's header; most take fifty
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages
DELTA_BYTE_ARRAY = 7  # the encoding in which a string may hold what those before it do


class Contradiction(Exception):
    """A file is not what it declares, or declares what no honest file does."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A leaf column's share of a row group: its name (`image.bytes`), its row group's rows, where
    its pages are in the file, and how large the footer says they are when decompressed."""

    path: str
    rows: int
    start: int
    stop: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page's header says: bytes in the file and in memory, rows or list items, and whether
    several rows may share its bytes."""

    kind: int
    stored: int
    size: int
    values: int
    is_shared: bool


def read_chunks(file: BinaryIO) -> list[list[Chunk]]:
    """The column chunks of each row group, as the footer has them.

    Raises:
        Contradiction: the footer is none, or hides a column.
    """
    end = file.seek(-8, 2)
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(end - length, 0))
    try:
        footer, _ = read_struct(file.read(length), 0)
        groups = [
            [_chunk(column[3], _number(group, 3)) for column in group[1] if _is_open(column)] for group in footer[4]
        ]
        promised, held = _number(footer, 3), sum(_number(group, 3) for group in footer[4])
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise Contradiction(f"its footer cannot be read ({type(error).__name__})") from error
    if promised != held:
        raise Contradiction(f"the footer promises {promised:,} rows, its row groups {held:,}")
    return groups


def _is_open(column: Fields) -> bool:
    if 8 in column or 9 in column:
        raise Contradiction("a column is encrypted")
    return True


def _chunk(facts: Fields, rows: int) -> Chunk:
    start, dictionary = _number(facts, 9), _number(facts, 11, 0)
    is_first = 0 < dictionary < start  # some writers leave a zero where there is none
    if is_first or rows == start == 0:  # without rows there is no page of data to begin at
        start = dictionary
    path = ".".join(step.decode(errors="replace") for step in facts[3])
    return Chunk(path=path, rows=rows, start=start, stop=start + _number(facts, 7), size=_number(facts, 6))


def _number(fields: Fields, number: int, default: int | None = None) -> int:
    """A field that is an integer, and nothing else."""
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise TypeError(f"field {number} is no number")
    return value


def check_chunk(file: BinaryIO, chunk: Chunk, *, is_repeated: bool) -> int:
    """Hold the pages of a column chunk to the limits and to the rows of its row group.

    Returns:
        How many bytes a single row of it may decode to, as far as rows can share bytes: those of
        its dictionary, 0 where there is none.

    Raises:
        Contradiction: what is wrong, with the column's name.
    """
    values = size = shared = 0
    for page in _pages(file, chunk):
        if page.size > LARGE and page.size > EXPANSION * page.stored:
            raise Contradiction(
                f"column {chunk.path} has a page of {page.stored:,} bytes that would take {page.size:,}, "
                f"over {LARGE >> 20} MiB and {EXPANSION} times as much; write it with smaller pages"
            )
        size += page.size
        values += 0 if page.kind == DICTIONARY else page.values
        shared = max(shared, page.size if page.is_shared else 0)
    if is_repeated and values * LIST_ITEM > max(8 * LARGE, EXPANSION * size):
        raise Contradiction(f"column {chunk.path} has {values:,} list items in pages of {size:,} bytes")
    if not is_repeated and values != chunk.rows:
        raise Contradiction(
            f"the footer promises {chunk.rows:,} rows of column {chunk.path} in a row group, its pages hold {values:,}"
        )
    return shared


def _pages(file: BinaryIO, chunk: Chunk) -> Iterator[Page]:
    """The headers of all pages of a column chunk."""
    position, end = chunk.start, file.seek(0, 2)
    if not 0 <= chunk.start <= chunk.stop <= end:
        raise Contradiction(f"column {chunk.path} is not in the file")
    while position < chunk.stop:
        try:
            header, length = _header(file, position)
            page = _page(header)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise Contradiction(f"column {chunk.path} has no page at byte {position:,}") from error
        position += length + page.stored
        if page.stored < 0 or page.size < 0 or page.values < 0 or position > chunk.stop:
            raise Contradiction(f"column {chunk.path} has a page that runs past its end")
        yield page


def _header(file: BinaryIO, position: int) -> tuple[Fields, int]:
    """A page's header and its length; those that hold long statistics take another read."""
    count = HEADER
    while True:
        file.seek(position)
        try:
            return read_struct(file.read(count), 0)
        except IndexError:
            if count == LONGEST_HEADER:
                raise
            count = LONGEST_HEADER


def _page(header: Fields) -> Page:
    kind = _number(header, 1)
    facts: dict[int, Any] = header.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0), {})
    encoding = facts.get(4 if kind == DATA_V2 else 2)
    return Page(
        kind=kind,
        stored=_number(header, 3),
        size=_number(header, 2),
        values=_number(facts, 1, 0),
        is_shared=kind == DICTIONARY or encoding == DELTA_BYTE_ARRAY,
    )
