from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tfbatch.batching.cutting import cut, firsts_first, padded, turn_by_turn
from tfbatch.batching.room import Room
from tfbatch.config import RunConfig
from tfbatch.errors import BadInput
from tfbatch.job import make_job
from tfbatch.plan import Plan, make_plan
from tfbatch.reader import read_windows
from tfbatch.session import Device
from tfbatch.steps import WIDE, WINDOW, light_windows


def written(path: Path, rows: int, row_group: int) -> str:
    pq.write_table(pa.table({"n": np.arange(rows), "other": ["x"] * rows}), path, row_group_size=row_group)
    return str(path)


def windows(plan: Plan, parts: list[int] | None = None) -> list[tuple[int, int, list[int]]]:
    chosen = plan.parts if parts is None else [plan.parts[index] for index in parts]
    found = read_windows(plan, chosen, ["n"], 50, 1 << 20)
    return [(window.part.first, window.first, window.rows.column("n").to_pylist()) for window in found]


def test_a_dictionary_within_a_struct_is_read_across_row_groups(tmp_path: Path) -> None:
    kind = pa.struct([("tag", pa.dictionary(pa.int32(), pa.string()))])
    table = pa.table({"n": pa.array([{"tag": f"t{index % 5}"} for index in range(100)], kind)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=9)
    plan = make_plan((str(tmp_path / "in.parquet"),)).in_parts(40)
    found = [row for _, _, rows in windows(plan) for row in rows]
    assert found == table["n"].to_pylist()


@pytest.mark.parametrize("row_group", [1, 7, 50, 64, 1000])
def test_every_row_is_in_one_window_of_its_part_in_order(row_group: int, tmp_path: Path) -> None:
    plan = make_plan((written(tmp_path / "in.parquet", 333, row_group),)).in_parts(100)
    found = windows(plan)
    assert [n for _, _, rows in found for n in rows] == list(range(333))
    for part_first, first, rows in found:
        assert rows[0] == first
        assert part_first <= first
        assert rows[-1] < part_first + 100
        assert len(rows) <= 50


@pytest.mark.parametrize("row_group", [1, 7, 64, 1000])
def test_a_part_has_the_same_windows_whatever_parts_are_read_with_it(row_group: int, tmp_path: Path) -> None:
    plan = make_plan((written(tmp_path / "in.parquet", 333, row_group),)).in_parts(40)
    together = windows(plan)
    for index, part in enumerate(plan.parts):
        assert windows(plan, [index]) == [window for window in together if window[0] == part.first]
    assert windows(plan, [1, 6]) == [window for window in together if window[0] in (40, 240)]


def test_an_empty_file_is_one_empty_window(tmp_path: Path) -> None:
    plan = make_plan((written(tmp_path / "in.parquet", 0, 10),)).in_parts(40)
    assert windows(plan) == [(0, 0, [])]


def test_row_groups_of_no_rows_are_passed_over(tmp_path: Path) -> None:
    table = pa.table({"n": [["a"], None, ["b", "c"]], "other": ["x", "y", "z"]})
    with pq.ParquetWriter(tmp_path / "in.parquet", table.schema) as writer:
        for rows in (table[:0], table[:2], table[:0], table[2:], table[:0]):
            writer.write_table(rows)
    plan = make_plan((str(tmp_path / "in.parquet"),)).in_parts(2)
    found = read_windows(plan, plan.parts, table.column_names, 50, 1 << 20)
    assert pa.concat_tables(window.rows for window in found).equals(table)


def test_few_heavy_rows_are_not_read_at_once(tmp_path: Path) -> None:
    """However few they are: what is decoded together is bounded by what it takes in the file."""
    cells = [np.random.default_rng(row).bytes(1 << 20) for row in range(20)]
    pq.write_table(pa.table({"n": cells}), tmp_path / "in.parquet", compression="none", use_dictionary=False)
    plan = make_plan((str(tmp_path / "in.parquet"),)).in_parts(100)
    found = [window.rows for window in read_windows(plan, plan.parts, ["n"], 100, 3 << 20)]
    assert max(rows.num_rows for rows in found) <= 3
    assert pa.concat_tables(found)["n"].to_pylist() == cells


def test_a_damaged_page_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"n": np.random.default_rng(0).integers(0, 1 << 60, 10_000)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    plan = make_plan((str(path),)).in_parts(10_000)
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="in.parquet cannot be read"):
        windows(plan)


def test_files_with_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", 3, 3)
    pq.write_table(pa.table({"n": ["text"], "other": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(BadInput, match="b.parquet has other columns.*n is int64 there, string here"):
        make_plan((str(tmp_path),)).in_parts(10)


def test_batches_hold_every_input_once_longest_first_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 500)
    for multiple in (1, 8):
        batches = cut(lengths, np.zeros(500, np.int64), 512, multiple)
        assert sorted(index for batch in batches for index in batch.inputs) == list(range(500))
        for batch in batches:
            assert batch.length == padded(int(lengths[batch.inputs].max()), multiple)
            assert batch.tokens <= 512 or len(batch.inputs) == 1
        longest = [batch.length for batch in batches]
        assert longest == sorted(longest, reverse=True)
    computed = sum(batch.tokens for batch in cut(lengths, np.zeros(500, np.int64), 512))
    assert computed < 1.05 * lengths.sum()


def test_lengths_are_padded_to_few_but_not_beyond_the_model() -> None:
    found = sorted({padded(length, 8) for length in range(1, 513)})
    assert found == [*range(8, 129, 8), *range(144, 257, 16), *range(288, 513, 32)]
    assert all(padded(length, 1) == length <= padded(length, 8) < 1.125 * length + 8 for length in range(1, 2000))
    for length, most in [
        (77, 77),
        (75, 77),
        (60, 64),
        (80, 80),
    ]:  # of 77 places
        (batch,) = cut(np.array([length]), np.zeros(1, np.int64), 512, 8, longest=77)
        assert batch.length == most


def test_the_first_batch_of_each_shape_comes_before_all_others() -> None:
    lengths = np.array([5, 5, 5, 5, 5, 3, 3, 3, 3])
    batches = cut(lengths, np.zeros(9, np.int64), 10)
    shapes = [batch.shape for batch in firsts_first(batches)]
    assert len(shapes) > len(set(shapes))
    assert len(set(shapes[: len(set(shapes))])) == len(set(shapes))
    assert sorted(np.concatenate([batch.inputs for batch in firsts_first(batches)])) == list(range(9))


def test_shapes_begin_as_far_apart_as_they_can_and_take_turns() -> None:
    random = np.random.default_rng(0)
    for lengths in (random.integers(8, 512, 8192), random.lognormal(4, 1, 8192).astype(np.int64) + 1):
        batches = cut(lengths, np.zeros(len(lengths), np.int64), 8192, 8)
        found = turn_by_turn(batches)
        shapes = [batch.shape for batch in found]
        firsts = [place for place, shape in enumerate(shapes) if shape not in shapes[:place]]
        assert firsts == [-(-rank * len(found) // len(firsts)) for rank in range(len(firsts))]
        seconds = [shapes.index(shapes[first], first + 1) for first in firsts if shapes.count(shapes[first]) > 1]
        assert all(np.diff(seconds) > 0)  # each has its turn before those behind it
        assert sorted(map(id, found)) == sorted(map(id, batches))
    assert turn_by_turn([]) == []


def test_a_window_is_there_once(tmp_path: Path) -> None:
    """Neither what it was joined of nor the window before is kept while it is used."""
    texts = [f"{row}".ljust(1000, ".") for row in range(4 * 8192)]
    pq.write_table(pa.table({"n": texts}), tmp_path / "in.parquet", use_dictionary=False, data_page_size=1 << 16)
    plan = make_plan((str(tmp_path / "in.parquet"),)).in_parts(100_000)
    del texts
    held, size = pa.total_allocated_bytes(), 0
    for window in read_windows(plan, plan.parts, ["n"], 8192, 1 << 24):
        size = window.rows.nbytes
        assert pa.total_allocated_bytes() - held < 1.5 * size
        del window
    assert size == pytest.approx(8192 * 1004, rel=0.01)


@pytest.mark.parametrize("wide", ["page", "text", "other"])
def test_the_windows_of_a_wide_table_are_bounded_by_what_the_task_reads_of_it(
    wide: str, text_bundle: Path, tmp_path: Path
) -> None:
    cells = {name: 10_000 if name == wide else 100 for name in ("page", "text", "other")}
    table = pa.table({name: [f"{row}".ljust(size) for row in range(4096)] for name, size in cells.items()})
    pq.write_table(table, tmp_path / "in.parquet", use_dictionary=False)
    on_processor = make_job(
        RunConfig(
            inputs=(str(tmp_path / "in.parquet"),), bundle=text_bundle, input_column="text", text_pair_column="other"
        )
    )
    on_gpu = replace(on_processor, devices=[Device(runtime="cuda")])
    own = on_processor.task.window_bytes
    for job, most in (
        (on_processor, WIDE if wide == "page" else own),
        (on_gpu, WINDOW if wide == "page" else own * on_gpu.device.window_scale),
    ):
        windows = list(light_windows(job, [job.plan.parts], Room(1 << 40)))
        assert pa.concat_tables(window.rows for window in windows).select(table.column_names).equals(table)
        assert 0.6 * most < max(window.rows.nbytes for window in windows) <= most


def test_a_window_is_one_block_a_column_of_whatever_kind_and_keeps_dictionaries(tmp_path: Path) -> None:
    """Pieces of 64 rows, each with blocks of its own, would lie in the heap among all else."""
    numbers = pa.array(range(150))
    texts = pa.array([None if row % 9 == 0 else f"row {row}" for row in range(150)])
    lists = pa.array([[row, None] if row % 7 else None for row in range(150)])
    plain = {
        "n": numbers,
        "nothing": pa.nulls(150),
        "flag": pa.array([row % 2 == 0 for row in range(150)]),
        "half": pa.array(np.arange(150, dtype=np.float16)),
        "price": numbers.cast(pa.decimal128(21, 2)),
        "time": numbers.cast(pa.timestamp("us", "UTC")),
        "length": numbers.cast(pa.duration("ms")),
        "text": texts,
        "large": texts.cast(pa.large_string()),
        "view": texts.cast(pa.string_view()),
        "bytes": texts.cast(pa.binary()),
        "key": pa.array([row.to_bytes(16, "big") for row in range(150)], pa.uuid()),
        "list": lists,
        "large_list": lists.cast(pa.large_list(pa.int64())),
        "pair": pa.FixedSizeListArray.from_arrays(pa.array(range(300)), 2),
        "map": pa.array([[("a", row)] for row in range(150)], pa.map_(pa.string(), pa.int64())),
        "picture": pa.array([{"bytes": b"x", "path": str(row)} for row in range(150)]),
    }
    for columns in (plain, {**plain, "tag": texts.dictionary_encode()}):
        table = pa.table(columns)
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=70)
        plan = make_plan((str(tmp_path / "in.parquet"),)).in_parts(1000)
        (window,) = read_windows(plan, plan.parts, table.column_names, 1000, 1 << 20)
        assert window.rows.equals(table)
        is_joined = {column.num_chunks for column in window.rows.columns} == {1}
        assert is_joined == (columns is plain)
