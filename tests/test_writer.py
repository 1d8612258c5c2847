"""How a part lies on the disk: row groups of bounded size, dictionaries where rows repeat."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, read_output, run_tfbatch
from tfbatch.choices.columns import writable
from tfbatch.host.hashes import sha256
from tfbatch.writer import ROW_GROUP_BYTES, PartWriter


def write(tables: list[pa.Table], path: Path, schema: pa.Schema | None = None) -> pq.ParquetFile:
    """A file of these tables, one after the other."""
    writer = PartWriter(path, schema or tables[0].schema)
    for table in tables:
        writer.append(table)
    writer.finish()
    assert writer.sha256 == sha256(path)
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


def test_row_groups_hold_no_more_entries_than_the_indices_of_a_dictionary_can(tmp_path: Path) -> None:
    """Else nobody could read them."""
    kind = pa.dictionary(pa.int8(), pa.string())
    tables = []
    for first in range(0, 4000, 100):
        tags = pa.array([f"{first // 1000}-{row}" for row in range(100)]).cast(kind)
        tables.append(pa.table({"tag": tags, "of": pa.StructArray.from_arrays([tags], ["tag"])}))
    file = write(tables, tmp_path / "part.parquet")
    assert file.schema_arrow == tables[0].schema
    assert 4 <= file.num_row_groups <= 16
    found = [row for index in range(file.num_row_groups) for row in file.read_row_group(index).to_pylist()]
    assert found == [row for table in tables for row in table.to_pylist()]


def compressions(file: pq.ParquetFile, group: int = 0) -> dict[str, str]:
    """How each leaf column of a row group is compressed."""
    found = file.metadata.row_group(group)
    columns = [found.column(index) for index in range(found.num_columns)]
    return {column.path_in_schema: column.compression for column in columns}


def test_bytes_that_compression_does_not_shorten_stay_as_they_are(tmp_path: Path) -> None:
    """By the first row group, for all of the file; whatever is no bytes is compressed."""
    random = np.random.default_rng(5)
    noise = [random.bytes(2_000) for _ in range(100)]
    halves = [bytes(2_000), noise[0]] * 50
    columns = {
        "photo.jpg": pa.array([{"bytes": cell, "path": "a"} for cell in noise]),
        "with a head": pa.array([bytes(3_000) + random.bytes(50_000) for _ in range(100)]),
        "large, or none": pa.array([None if row % 3 else cell for row, cell in enumerate(noise)], pa.large_binary()),
        "bitmap": pa.array([bytes(2_000)] * 100),
        "half of them": pa.array(halves),
        "too few": pa.array([None] * 99 + noise[:1]),
        "too short": pa.array([cell[:16] for cell in noise]),
        "none": pa.array([None] * 100, pa.binary()),
        "photos": pa.array([[cell] for cell in noise]),
        "text": pa.array([cell.hex() for cell in noise]),
        "number": pa.array(random.integers(0, 1 << 62, 100)),
    }
    first = pa.table(columns)
    other = first.set_column(0, first.schema.field(0), pa.array([{"bytes": bytes(2_000), "path": "b"}] * 100))
    file = write([first, other, other], tmp_path / "part.parquet")
    assert file.num_row_groups == 3
    for group in range(3):
        assert [path for path, codec in compressions(file, group).items() if codec != "ZSTD"] == [
            "photo.jpg.bytes",
            "with a head",
            "large, or none",
        ]
    assert file.read().equals(pa.concat_tables([first, other, other]))


@pytest.mark.parametrize("rows", [3, 100, 250, 2_000])
def test_small_pngs_are_compressed_however_many_a_part_has(rows: int, tmp_path: Path) -> None:
    """They become a tenth shorter: where a part begins and ends must not decide."""
    clothes = pq.read_table(ROOT / "build" / "data" / "fashion.parquet", columns=["image"])
    for first in range(0, 2_000, max(rows, 50)):
        file = write([clothes.slice(first, rows)], tmp_path / f"{first}.parquet")
        assert compressions(file)["image.bytes"] == "ZSTD"


def test_a_part_can_be_dropped_at_any_time(tmp_path: Path) -> None:
    table = pa.table({"id": range(3)})
    for appended in ([], [table], [table] * 9_000):
        writer = PartWriter(tmp_path / "part.parquet", table.schema)
        for each in appended:
            writer.append(each)
        writer.drop()
        assert not list(tmp_path.iterdir())


def test_a_file_of_no_rows_has_its_columns(tmp_path: Path) -> None:
    empty = pa.table({"picture": pa.array([], pa.binary()), "label": pa.array([], pa.string())})
    assert write([], tmp_path / "none.parquet", empty.schema).read().equals(empty)
    assert write([empty], tmp_path / "empty.parquet").read().equals(empty)


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_columns_that_hold_no_null_and_types_within_types_come_out_as_they_were(
    output: str, text_bundle: Path, tmp_path: Path
) -> None:
    """Of types that Arrow adds within others it cannot make a column of no rows by itself."""
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes([row]) * 16 for row in range(4)], pa.binary(16)))
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("keys", pa.list_(pa.uuid())),
            pa.field("pair", pa.struct([pa.field("key", pa.uuid()), pa.field("place", pa.int32(), nullable=False)])),
        ]
    )
    columns = [
        pa.array(range(4)),
        pa.array(["good film", "bad", "", "good"]),
        pa.ListArray.from_arrays([0, 1, 2, 2, 4], uuids),
        pa.StructArray.from_arrays([uuids, pa.array(range(4), pa.int32())], fields=list(schema.field("pair").type)),
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    target = tmp_path / output
    words = ["-m", text_bundle, "-o", target, "--input-column", "text", "--rows-per-part", 2]
    done = run_tfbatch("run", tmp_path / "in.parquet", *words)
    assert done.code == 0, done.err
    found = pq.read_table(target) if target.is_file() else read_output(target)
    assert found.select(schema.names).equals(table)
    assert [found.schema.field(name) for name in schema.names] == list(schema)


def test_views_within_structs_come_out_as_plain_cells(text_bundle: Path, tmp_path: Path) -> None:
    """As they are in the file: pyarrow writes them as views only in pieces that it need not slice."""
    views, plain = (
        pa.struct([pa.field("a", text, metadata={"of": "a"}), pa.field("b", pa.struct([("c", data)]))])
        for text, data in ((pa.string_view(), pa.binary_view()), (pa.string(), pa.binary()))
    )
    pairs = [(row % 3 and {"a": f"a{row}" * 9, "b": {"c": b"c" * row}}) or None for row in range(600)] * 5
    schema = pa.schema([("text", pa.string()), ("pair", views)])
    with pq.ParquetWriter(tmp_path / "in.parquet", schema) as writer:
        for first in range(0, 3000, 600):
            rows = [["good film"] * 600, pa.array(pairs[first : first + 600], views)]
            writer.write_table(pa.table(rows, schema=schema))
    assert pq.read_schema(tmp_path / "in.parquet").field("pair").type == views
    words = ["-m", text_bundle, "-o", tmp_path / "out", "--input-column", "text", "--rows-per-part", 1700]
    done = run_tfbatch("run", tmp_path / "in.parquet", *words)
    assert done.code == 0, done.err
    found = read_output(tmp_path / "out")["pair"]
    assert (found.type, found.type.field("a").metadata) == (plain, {b"of": b"a"})
    assert found.to_pylist() == pairs


def test_only_views_that_a_struct_holds_are_written_otherwise() -> None:
    view, text = pa.string_view(), pa.string()
    for kind in (view, pa.list_(view), pa.map_(text, view), pa.struct([("a", pa.list_(view))]), pa.list_(text, 3)):
        assert writable(kind) == kind
    holding, plain = pa.struct([("a", view)]), pa.struct([("a", text)])
    lists = (pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2))
    for make in (*lists, lambda kind: pa.map_(text, kind), lambda kind: pa.struct([pa.field("b", kind, False)])):
        assert writable(make(holding)) == make(plain)


def test_timestamps_as_spark_writes_them_are_of_any_year(text_bundle: Path, tmp_path: Path) -> None:
    times = [datetime(1, 1, 1, tzinfo=None), datetime(9999, 12, 31, 1, 2, 3, 456789)]
    table = pa.table({"text": ["good film", "bad"], "time": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True)
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert read_output(tmp_path / "out")["time"].to_pylist() == times
