"""Pictures that were made to break a decoder: each costs its own row and nothing else."""

import io
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import Finished, read_output, run_tfbatch, tfbatch_env
from PIL import Image
from tfbatch.pictures.decoders import Decoders
from tfbatch.pictures.images import FORMATS, MAX_BYTES, UnfitPicture
from tfbatch.pictures.views import View, render

pytestmark = pytest.mark.faults

PICTURES = 2000
SECONDS, BYTES = 2.0, 300e6  # that the worst of them may take
MODES = {
    "JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "P", "RGBA", "1", "I;16"], "GIF": ["P", "L"],
    "BMP": ["RGB", "L", "P", "1"], "TIFF": ["RGB", "L", "CMYK", "P", "1", "RGBA"],
}  # fmt: skip
VIEW = View(size=(32, 32), resample=Image.Resampling.BILINEAR)


def encoded(random: np.random.Generator, form: str) -> bytes:
    """A valid picture of some mode, size and setting of a format."""
    size = (int(random.integers(1, 200)), int(random.integers(1, 200)))
    pixels = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
    if random.random() < 0.5:
        pixels = pixels.resize((max(1, size[0] // 8), max(1, size[1] // 8))).resize(size)
    mode = str(random.choice(MODES.get(form, ["RGB", "RGBA"])))
    picture = pixels.convert("L").convert(mode) if mode == "I;16" else pixels.convert(mode)
    options: dict[str, object] = {}
    if form == "TIFF":
        options["compression"] = str(random.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    elif form == "JPEG":
        options["progressive"] = bool(random.integers(2))
    elif form == "AVIF":
        options["speed"] = 10
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def mutated(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """A file with bits flipped, bytes replaced, its end gone, its header edited, or part of another in it."""
    content, size = bytearray(data), len(data)
    match int(random.integers(6)):
        case 0:
            for place in random.integers(0, size, random.integers(1, 30)):
                content[place] ^= 1 << int(random.integers(8))
        case 1:
            for place in random.integers(0, min(size, 64), random.integers(1, 6)):
                content[place] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)]))
        case 2:
            del content[int(random.integers(1, size)) :]
        case 3:
            place, start = int(random.integers(size)), int(random.integers(len(other)))
            content[place : place + 100] = other[start : start + int(random.integers(1, 400))]
        case 4:
            place = int(random.integers(size))
            content[place : place + 4] = bytes([255] * 4) if random.integers(2) else bytes(4)
        case _:
            place = int(random.integers(size))
            del content[place : place + int(random.integers(1, 100))]
    return bytes(content)


def fuzzed(count: int) -> list[bytes]:
    random = np.random.default_rng(0)
    whole = {form: [encoded(random, form) for _ in range(12)] for form in FORMATS}
    cells = []
    for index in range(count):
        form = FORMATS[index % len(FORMATS)]
        other = whole[str(random.choice(FORMATS))][int(random.integers(12))]
        cells.append(mutated(random, whole[form][int(random.integers(12))], other))
    return cells


def test_fuzzed_pictures_are_decoded_or_refused_in_bounded_time_and_memory() -> None:
    decoders = Decoders()
    ends: Counter[str] = Counter()
    seconds = []
    for data in fuzzed(PICTURES):
        started = time.monotonic()
        try:
            pixels = decoders.render(pa.py_buffer(data), VIEW)
            assert pixels.shape == (32, 32, 3)
            ends["decoded"] += 1
        except UnfitPicture as error:
            ends[str(error).split(":")[0] + (" (a decoder ended)" if "the decoder" in str(error) else "")] += 1
        seconds.append(time.monotonic() - started)
    peak = decoders.peak_memory()
    decoders.close()
    print(dict(ends), f"worst {max(seconds[1:]):.2f} s, median {np.median(seconds) * 1000:.1f} ms, {peak / 1e6:.0f} MB")
    assert ends.total() == PICTURES
    assert min(ends["decoded"], ends["undecodable"]) > PICTURES / 10
    assert max(seconds[1:]) < SECONDS  # the first waits for a process to start
    assert peak < BYTES


def test_fuzzed_pictures_go_through_a_run_without_a_traceback(image_bundle: Path, tmp_path: Path) -> None:
    cells = fuzzed(PICTURES)
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "in.parquet", row_group_size=300)
    words = ["run", tmp_path / "in.parquet", "-m", image_bundle, "-o", tmp_path / "out"]
    done = run_tfbatch(*words)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    table = read_output(tmp_path / "out")
    assert table["image"].to_pylist() == cells
    assert pc.all(pc.xor(table["error"].is_valid(), table["predicted_label"].is_valid())).as_py()
    print(f"{table['error'].length() - table['error'].null_count} of {PICTURES} refused, {done.result['seconds']} s")


def png(width: int, height: int, body: bytes = b"") -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + body
    return b"\x89PNG\r\n\x1a\n" + png_chunk(header) + png_chunk(data)


def png_chunk(content: bytes) -> bytes:
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def noise() -> bytes:
    """A valid JPEG of some kilobytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


# Does in a decoder what a broken one might do, when it meets a picture that says so.
TRAP = """
import os, signal, sys
if sys.argv[0] == "-m" or "tfbatch.pictures.decoder" in " ".join(sys.orig_argv):
    from PIL import Image
    open_plainly = Image.open
    def open_trapped(file, *words, **more):
        data = file.getvalue()
        if data.startswith(b"crash"): os.kill(os.getpid(), signal.SIGSEGV)
        if data.startswith(b"hang"):
            import tfbatch.pictures.decoder
            signal.setitimer(signal.ITIMER_PROF, 1)
            while True: pass
        if data.startswith(b"memory"): held = [bytearray(1 << 28) for _ in range(100)]
        return open_plainly(file, *words, **more)
    Image.open = open_trapped
"""
POISON: dict[str, tuple[bytes | None, str]] = {
    "null": (None, "null: the cell is null"),
    "text": (b"a picture of a cat", "undecodable: not a picture"),
    "truncated": (noise()[:2000], "undecodable: the picture is broken"),
    "bomb by its header": (png(100_000, 100_000), "too_large: 100000 x 100000"),
    "bomb by its content": (png(10, 10, zlib.compress(bytes(200_000_000))), ""),
    "too many bytes": (bytes(MAX_BYTES + 1), "too_large: 200,000,001 bytes are over 200,000,000"),
    "crash": (b"crash", "undecodable: the decoder crashed (SIGSEGV)"),
    "hang": (b"hang", "undecodable: decoding takes too much of the processor's time"),
    "memory": (b"memory", "too_large: decoding takes too much memory"),
}


def run_trapped(cells: list[bytes | None], bundle: Path, folder: Path) -> Finished:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TRAP)
    table = pa.table({"id": range(len(cells)), "image": pa.array(cells, pa.large_binary())})
    pq.write_table(table, folder / "in.parquet", use_dictionary=False, compression="none", row_group_size=32)
    environment = {"PYTHONPATH": f"{folder}:{tfbatch_env()['PYTHONPATH']}"}
    words = ["-m", bundle, "-o", folder / "out", "--keep-columns", "id", "--threads", 2]
    return run_tfbatch("run", folder / "in.parquet", *words, env=environment)


@pytest.mark.parametrize("name", POISON)
def test_one_poisonous_picture_changes_no_other_row(
    name: str, image_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    cell, reason = POISON[name]
    tables = []
    for folder, middle in (("good", picture(seed=99)), ("poison", cell)):
        cells = [picture(seed=row) for row in range(100)]
        cells[50] = middle
        done = run_trapped(cells, image_bundle, tmp_path / folder)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        tables.append(read_output(tmp_path / folder / "out"))
    good, poisoned = (table.filter(pc.not_equal(table["id"], 50)) for table in tables)
    assert good.num_rows == 99
    assert good.equals(poisoned)
    assert good["error"].null_count == 99
    assert (tables[1]["error"][50].as_py() or "").startswith(reason)


@pytest.mark.parametrize("form", ["ICO", "PPM", "EPS", "TGA", "SGI", "PCX", "DDS", "ICNS", "JPEG2000"])
def test_formats_outside_the_list_are_not_opened(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, form)
    with pytest.raises(UnfitPicture, match="not a picture in any of JPEG"):
        render(buffer.getvalue(), View())


def test_processes_give_the_pixels_that_threads_give() -> None:
    """How fast either is, is reported."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (60, 60, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((500, 500), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    data, view = buffer.getvalue(), View(size=(224, 224), resample=Image.Resampling.BILINEAR)
    decoders, shared = Decoders(), pa.py_buffer(data)
    both = {"processes": lambda _: decoders.render(shared, view), "threads": lambda _: np.asarray(render(data, view))}
    rates: dict[str, list[float]] = {name: [] for name in both}
    pixels = [way(0) for way in both.values()]
    with ThreadPoolExecutor(2) as pool:
        for way in both.values():
            list(pool.map(way, range(20)))
        for _ in range(5):
            for name, way in both.items():
                started = time.monotonic()
                list(pool.map(way, range(200)))
                rates[name].append(200 / (time.monotonic() - started))
    decoders.close()
    medians = {name: float(np.median(found)) for name, found in rates.items()}
    ratio = medians["processes"] / medians["threads"]
    print({name: f"{rate:.0f}/s" for name, rate in medians.items()}, f"ratio {ratio:.2f}")
    assert np.array_equal(*pixels)
