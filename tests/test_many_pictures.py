"""Thousands of pictures of all sizes, some broken: every row comes out, in memory that does not grow.

Minutes and a gigabyte of disk: `make test-long`.
"""

import io
import json
import re
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import tfbatch_env
from pictures import PictureModel
from PIL import Image

LARGEST = (6000, 4000)
BROKEN_EVERY = 33  # rows: 3 %
LARGEST_EVERY = 100
FEW = 800  # pictures: windows of 64 that weigh 32 MB, as many as two threads have on their way at most


def bomb() -> bytes:
    """A PNG of a few bytes that says it has ten thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def jpeg(random: np.random.Generator, size: tuple[int, int]) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def broken(random: np.random.Generator, index: int) -> bytes:
    """Truncated, SVG, text, a bomb and HEIC in turn."""
    whole = jpeg(random, (300, 200))
    kinds = (whole[: len(whole) // 2], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"a picture of a cat",
             bomb(), b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200))  # fmt: skip
    return kinds[index % len(kinds)]


def write_mixed(path: Path, rows: int) -> Path:
    """Sizes from 1 x 1 to LARGEST, as many small as large ones; row groups of 50."""
    random = np.random.default_rng(rows)
    schema = pa.schema([("id", pa.int64()), ("image", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, rows, 50):
            cells = []
            for row in range(start, start + 50):
                size = tuple(round(side ** random.random()) for side in LARGEST)
                if row % LARGEST_EVERY == 7:
                    size = LARGEST
                is_broken = row % BROKEN_EVERY == BROKEN_EVERY - 1
                cells.append(broken(random, row // BROKEN_EVERY) if is_broken else jpeg(random, size))
            writer.write_table(pa.table({"id": range(start, start + 50), "image": cells}, schema=schema))
    return path


def peak_of_family(process: subprocess.Popen[str]) -> int:
    """The most memory, in bytes, that a process and those it started held at once, looked at until it ends."""
    peak = 0
    while process.poll() is None:
        with suppress(OSError):  # they come and go
            threads = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = [child for thread in threads for child in thread.read_text().split()]
            peak = max(peak, sum(resident(member) for member in [str(process.pid), *children]))
        time.sleep(0.01)
    return peak


def resident(process: str) -> int:
    """What a process holds in memory now, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@pytest.mark.long
def test_memory_does_not_grow_with_the_pictures_and_every_row_comes_out(
    picture_model: PictureModel, tmp_path: Path
) -> None:
    peaks = {}
    for rows in (FEW, 5000):
        source = write_mixed(tmp_path / f"{rows}.parquet", rows)
        words = ["-m", picture_model("vit")[1], "--original-size", "--keep-columns", "id", "--image-format", "jpeg"]
        command = [sys.executable, "-m", "tfbatch.cli", "run", source, *words, "--quiet", "--rows-per-part", 1000]
        with subprocess.Popen(
            [*map(str, command), "-o", tmp_path / str(rows)], env=tfbatch_env(), stdout=subprocess.PIPE, text=True
        ) as process:
            peaks[rows] = peak_of_family(process)
            assert process.stdout is not None
            done = json.loads(process.stdout.read().splitlines()[-1])
        assert done["exit_code"] == 0, done
        print(rows, f"{peaks[rows] / 1e6:,.0f} MB at once, {done['peak_memory_bytes'] / 1e6:,.0f} MB as the summary")
        print(f"adds up what each process held at most, {done['seconds']:.0f} s")
        assert peaks[rows] <= done["peak_memory_bytes"]
        seen = 0
        for part in sorted((tmp_path / str(rows)).glob("part-*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches(50):
                expected = range(seen, seen + batch.num_rows)
                assert batch["id"].to_pylist() == list(expected)
                bad = [row % BROKEN_EVERY == BROKEN_EVERY - 1 for row in expected]
                assert [error is not None for error in batch["error"].to_pylist()] == bad
                assert batch["generated_image"].is_null().to_pylist() == bad
                seen += batch.num_rows
        assert (seen, done["errors"]) == (rows, rows // BROKEN_EVERY)
    assert peaks[5000] <= 1.15 * peaks[FEW]
