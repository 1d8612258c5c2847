"""Parquet files that are not what they say: exit 65 that names the file, or rows, never anything else."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS, run_tfbatch, tfbatch_env
from tfbatch.errors import BadInput
from tfbatch.plan import make_plan
from tfbatch.reader import read_windows

pytestmark = pytest.mark.faults

FILES, AT_ONCE = 500, 50
SECONDS = 10.0  # that the worst of them may take
DOCUMENTED = {0, 2, 65}
WORKER = """
import contextlib, io, json, resource, sys, time
from tfbatch import cli
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
bundle, out, *files = sys.argv[1:]
for index, file in enumerate(files):
    words = ["-m", bundle, "-o", f"{out}/{index}", "--input-column", "text", "--threads", "1", "--quiet"]
    sys.argv = ["tfbatch", "run", file, *words]
    said, started = io.StringIO(), time.monotonic()
    print(file, flush=True)
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.exit_code_of_command()
    seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"code": code, "said": said.getvalue(), "seconds": seconds, "peak": peak}), flush=True)
"""


def table(rows: int) -> pa.Table:
    random = np.random.default_rng(rows)
    texts = [" ".join(random.choice(WORDS[:-1], random.integers(1, 9))) for _ in range(rows)]
    texts[3::17] = [None] * len(texts[3::17])
    return pa.table({
        "id": np.arange(rows), "text": pa.array(texts, pa.string()), "weight": random.random(rows),
        "tags": pa.array([[WORDS[row % 6]] * (row % 4) for row in range(rows)]),
        "pair": pa.array([{"a": row, "b": str(row % 5)} for row in range(rows)]),
        "kind": pa.array([WORDS[row % 3] for row in range(rows)]).dictionary_encode(),
        "time": pa.array(np.arange(rows), pa.timestamp("us")), "flag": pa.array([row % 2 == 0 for row in range(rows)]),
        "price": pa.array([None if row % 3 else row for row in range(rows)], pa.decimal128(12, 2)),
    })  # fmt: skip


def whole_files() -> Iterator[dict[str, object]]:
    """Ways to write the same rows: compressions, encodings, page versions, with checksums and without."""
    small = {"data_page_size": 1024, "row_group_size": 80}
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        yield {**small, "compression": compression}
        yield {**small, "compression": compression, "use_dictionary": False, "data_page_version": "2.0",
               "write_page_checksum": True, "write_page_index": True}  # fmt: skip
    delta = {"id": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "weight": "BYTE_STREAM_SPLIT",
             "tags.list.element": "DELTA_LENGTH_BYTE_ARRAY"}  # fmt: skip
    for version in ("1.0", "2.0"):
        yield {**small, "use_dictionary": False, "column_encoding": delta, "data_page_version": version}


def mutated(random: np.random.Generator, data: bytes) -> bytes:
    """A file changed in its footer, its pages or their headers."""
    content, size = bytearray(data), len(data)
    footer = size - 8 - int.from_bytes(data[-8:-4], "little")
    match int(random.integers(7)):
        case 0:
            for place in random.integers(0, size, random.integers(1, 20)):
                content[place] ^= 1 << int(random.integers(8))
        case 1:
            for place in random.integers(footer, size, random.integers(1, 6)):
                content[place] = int(random.integers(256))
        case 2:
            content[int(random.integers(footer, size - 8))] ^= 1 << int(random.integers(8))
        case 3:
            for place in random.integers(4, footer, random.integers(1, 30)):
                content[place] = int(random.integers(256))
        case 4:
            to, start, length = random.integers(4, footer), random.integers(4, footer), random.integers(1, 200)
            content[to : to + length] = content[start : start + length]
        case 5:
            place = int(random.integers(4, footer))
            del content[place : place + int(random.integers(1, 400))]
        case _:
            del content[int(random.integers(1, size)) :]
    return bytes(content)


def test_fuzzed_files_are_read_or_refused_by_name_in_bounded_time(text_bundle: Path, tmp_path: Path) -> None:
    whole = []
    for options in whole_files():
        pq.write_table(table(200), tmp_path / "whole.parquet", **options)
        whole.append((tmp_path / "whole.parquet").read_bytes())
    random = np.random.default_rng(0)
    files = []
    for index in range(FILES):
        files.append(tmp_path / f"fuzzed-{index}.parquet")
        files[-1].write_bytes(mutated(random, whole[index % len(whole)]))
    results = []
    for start in range(0, FILES, AT_ONCE):
        out = tmp_path / f"out-{start}"
        command = [sys.executable, "-c", WORKER, text_bundle, out, *files[start : start + AT_ONCE]]
        done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, timeout=AT_ONCE * SECONDS)
        assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-3000:])
        results += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(results) == FILES
    codes = Counter(result["code"] for result in results)
    seconds = [result["seconds"] for result in results]
    peak = max(result["peak"] for result in results)
    print(dict(codes), f"worst {max(seconds):.2f} s, median {np.median(seconds) * 1000:.0f} ms, {peak / 1e6:.0f} MB")
    assert set(codes) <= DOCUMENTED, [result["said"] for result in results if result["code"] not in DOCUMENTED]
    assert min(codes[0], codes[65]) > FILES / 20
    assert max(seconds) < SECONDS
    for file, result in zip(files, results, strict=True):
        assert "Traceback" not in result["said"]
        assert result["code"] != 65 or str(file) in result["said"]


def written(path: Path, rows: pa.Table, **options: object) -> Path:
    pq.write_table(rows, path, **options)
    return path


def reread(path: Path, columns: list[str]) -> int:
    """How many rows the reader finds."""
    plan = make_plan((str(path),)).in_parts(100_000)
    return sum(window.rows.num_rows for window in read_windows(plan, plan.parts, columns, 2048, 4 << 20))


def replaced_in_footer(path: Path, old: bytes, new: bytes, most: int = 1) -> None:
    """Change a footer that has no checksum of its own; lengths stay."""
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert old in data[start:]
    assert len(old) == len(new)
    path.write_bytes(data[:start] + data[start:].replace(old, new, most))


def zigzag(value: int) -> bytes:
    value, content = 2 * value, b""
    while value > 0x7F:
        content += bytes([value & 0x7F | 0x80])
        value >>= 7
    return content + bytes([value])


@pytest.mark.parametrize("told", [10_400, 10_200])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_footer_that_lies_about_its_rows_is_refused(
    told: int, everywhere: bool, text_bundle: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.parquet", pa.table({"text": ["good film", "bad"] * 5150}), store_schema=False)
    replaced_in_footer(path, zigzag(10_300), zigzag(told), 99 if everywhere else 1)
    assert pq.read_metadata(path).num_rows == told
    done = run_tfbatch("run", path, "-m", text_bundle, "-o", tmp_path / "out")
    assert done.code == 65, done
    assert f"{path} cannot be read: the footer promises {told:,} rows" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_size_statistics_that_do_not_fit_their_column_end_no_process(text_bundle: Path, tmp_path: Path) -> None:
    """pyarrow ends the process itself where it is asked for such a column's metadata."""
    rows = pa.table({"text": [None, *["good"] * 76, None], "n": range(78)})
    path = written(tmp_path / "in.parquet", rows, store_schema=False)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    histogram = b"\x26" + zigzag(2) + zigzag(76)  # a list of two long integers: absent and present
    assert data.count(histogram, start) >= 1
    path.write_bytes(data[:start] + data[start:].replace(histogram, b"\x36" + zigzag(2) + b"\x00\x00", 1))
    probe = "import sys, pyarrow.parquet as pq; pq.read_metadata(sys.argv[1]).row_group(0).column(0)"
    dies = subprocess.run([sys.executable, "-c", f"import resource; resource.setrlimit(4, (0, 0)); {probe}", path])
    done = run_tfbatch("run", path, "-m", text_bundle, "-o", tmp_path / "out")
    print(f"pyarrow alone: {dies.returncode}; tfbatch: {done.code} {done.err.strip()}")
    assert done.code == 65, done
    assert str(path) in done.err


def encrypted(path: Path, *, plaintext_footer: bool) -> Path:
    from pyarrow.parquet import encryption

    class Keys(encryption.KmsClient):
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key.hex().encode()

        def unwrap_key(self, wrapped: bytes, name: str) -> bytes:
            return bytes.fromhex(wrapped.decode())

    config = encryption.EncryptionConfiguration(
        "footer", column_keys={"column": ["text"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    return written(path, pa.table({"text": ["good"] * 10, "n": range(10)}), encryption_properties=properties)


def damaged(path: Path) -> Path:
    rows = pa.table({"text": [f"good film {row}" for row in range(5000)]})
    written(path, rows, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    return path


def drifted(path: Path) -> Path:
    written(path.with_name("a.parquet"), pa.table({"text": ["good"], "n": [1]}))
    return written(path, pa.table({"text": ["good"], "n": ["one"]}))


def misnamed(path: Path) -> Path:
    written(path, pa.table({"text": ["good"], "qqqq": [1]}), store_schema=False)
    replaced_in_footer(path, b"qqqq", b"\xff\xfe\xf8q", 99)
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "encrypted": (lambda path: encrypted(path, plaintext_footer=False), "encrypted"),
    "an encrypted column": (lambda path: encrypted(path, plaintext_footer=True), "encrypted"),
    "a wrong checksum": (damaged, "CRC"),
    "other columns than before": (drifted, "n is int64 there, string here"),
    "a name that is no UTF-8": (misnamed, "utf-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_by_name(name: str, text_bundle: Path, tmp_path: Path) -> None:
    make, reason = BROKEN[name]
    folder = tmp_path / "in"
    folder.mkdir()
    path = make(folder / "b.parquet")
    done = run_tfbatch("run", folder, "-m", text_bundle, "-o", tmp_path / "out", "--input-column", "text")
    assert done.code == 65, done
    assert str(path) in done.err
    assert reason in done.err
    assert len(done.err.strip().splitlines()) == 1
    print(done.err.strip())


@pytest.mark.parametrize("compression", ["zstd", "gzip", "brotli"])
def test_a_page_that_takes_a_gigabyte_is_refused_unread(compression: str, tmp_path: Path) -> None:
    rows = pa.table({"text": pa.array(["x" * 1_000_000] * 1000, pa.large_string())})
    options = {"use_dictionary": False, "data_page_size": 2 << 30, "write_batch_size": 1000}
    path = written(tmp_path / "in.parquet", rows, compression=compression, **options)
    print(f"{compression}: {path.stat().st_size:,} bytes")
    with pytest.raises(BadInput, match="in.parquet cannot be read: .* a page of .* that would take 1,000,"):
        reread(path, ["text"])


def test_a_gigabyte_of_list_items_in_no_bytes_is_refused(tmp_path: Path) -> None:
    items = pa.array(np.zeros(300_000_000, np.int8))
    lists = pa.ListArray.from_arrays(pa.array([0, len(items)], pa.int32()), items)
    path = written(tmp_path / "in.parquet", pa.table({"text": ["good"], "list": lists}))
    with pytest.raises(BadInput, match="column list.list.element has 300,000,000 list items"):
        reread(path, ["text", "list"])
    assert reread(path, ["text"]) == 1


PEAK = """
import sys
from tfbatch.batching.cells import distinct
from tfbatch.host.machine import peak_memory
from tfbatch.plan import make_plan
from tfbatch.reader import read_windows
plan = make_plan((sys.argv[1],)).in_parts(100_000, limit=int(sys.argv[2]))
before, rows = peak_memory(), 0
for window in read_windows(plan, plan.parts, ["text"], 2048, 4 << 20):
    distinct(window.rows["text"])
    rows += window.rows.num_rows
print(rows, peak_memory() - before)
"""


@pytest.mark.parametrize("is_dictionary", [False, True])
@pytest.mark.parametrize(("length", "rows", "limit"), [(4000, 20_000_000, 100_000), (10_000_000, 1_000_000, 200)])
def test_a_string_repeated_to_terabytes_is_read_in_bounded_memory(
    length: int, rows: int, limit: int, is_dictionary: bool, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    indices = pa.array(np.zeros(1_000_000, np.int32))
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["good " * (length // 5)]))
    part = pa.table({"text": column})
    options = {"store_schema": is_dictionary, "dictionary_pagesize_limit": 1 << 30, "compression": "zstd"}
    with pq.ParquetWriter(path, part.schema, **options) as writer:
        for _ in range(rows // 1_000_000):
            writer.write_table(part)
    command = [sys.executable, "-c", PEAK, path, str(limit)]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=True)
    found, more = map(int, done.stdout.split())
    print(f"{rows:,} rows of {length:,} characters in {path.stat().st_size:,} bytes: {more / 1e6:.0f} MB for {found:,}")
    assert found == limit
    assert more < 400e6
