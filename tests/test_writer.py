"""How a part lies on the disk: row groups of bounded size, dictionaries where rows repeat."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tfbatch.writer import ROW_GROUP_BYTES, PartWriter


def write(tables: list[pa.Table], path: Path) -> pq.ParquetFile:
    """A file of these tables, one after the other."""
    writer = PartWriter(path, tables[0].schema)
    for table in tables:
        writer.append(table)
    writer.finish()
    return pq.ParquetFile(path)


def test_lists_of_floating_point_numbers_get_no_dictionary_and_all_else_does(tmp_path: Path) -> None:
    numbers = np.arange(8, dtype=np.float32)
    table = pa.table(
        {
            "label.of": pa.array(["a", "b"] * 4),
            "kind": pa.array(["x", "y"] * 4).dictionary_encode(),
            "page": pa.array(range(8), pa.int64()),
            "picture": pa.array([{"bytes": b"1", "path": None}] * 8),
            "score": pa.array(numbers),
            "exact": pa.array(numbers, pa.float64()),
            "short": pa.array(numbers.astype(np.float16)),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.tile(numbers, 4)), 4),
            "short_embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.tile(numbers, 4).astype(np.float16)), 4),
        }
    )
    file = write([table], tmp_path / "part.parquet")
    group = file.metadata.row_group(0)
    leaves = [group.column(index) for index in range(group.num_columns)]
    assert [leaf.path_in_schema for leaf in leaves if leaf.has_dictionary_page] == [
        "label.of",
        "kind",
        "page",
        "picture.bytes",
        "picture.path",
        "score",
        "exact",
        "short",
    ]
    assert file.read().equals(table)


def test_row_groups_end_by_their_bytes(tmp_path: Path) -> None:
    """With the rows that reach the limit, however many those are."""
    rows = 64
    size = ROW_GROUP_BYTES // 16
    tables = [pa.table({"text": [f"{first}".ljust(size // rows, ".")] * rows}) for first in range(40)]
    large = pa.table({"text": ["x" * (2 * ROW_GROUP_BYTES)]})
    tables += [large, tables[0]]
    file = write(tables, tmp_path / "part.parquet")
    rows_of_group = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert rows_of_group == [1024, 1024, 512 + 1, 64]
    assert file.read().equals(pa.concat_tables(tables))
