import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, read_output, run_tfbatch, tfbatch_env
from photographs import SMOOTH, encoded, grey_levels_off, scene, turned
from PIL import Image
from tfbatch.bundle import load_bundle
from tfbatch.host import child
from tfbatch.pictures.decoder_process import Decoder, Found
from tfbatch.pictures.decoders import MANY, TOGETHER, Decoders, together
from tfbatch.pictures.images import UnfitPicture, to_eight_bits
from tfbatch.pictures.pixels import ImageInput
from tfbatch.pictures.views import View, render
from transformers import AutoImageProcessor


def test_pixels_are_those_of_the_hubs_processor(
    image_bundle: Path, image_checkpoint: Path, picture: Callable[..., bytes]
) -> None:
    processor = AutoImageProcessor.from_pretrained(image_checkpoint, backend="pil")
    for size in ((40, 30), (32, 32), (7, 300), (1, 1)):
        data = picture(size)
        work = ImageInput(load_bundle(image_bundle)).prepare(pa.chunked_array([[data]]))
        found = np.asarray(work.collate(np.array([0]), 17)["pixel_values"])
        expected = processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 257 * 100, 65535]], np.uint16)
    assert np.asarray(render(encoded(Image.fromarray(levels), "PNG"), View()))[0, :, 0].tolist() == [0, 100, 255]
    assert to_eight_bits(Image.new("L", (1, 1))).mode == "L"
    for level in (200, 257 * 200):
        assert render(encoded(Image.new("I", (1, 1), level), "TIFF"), View()).getpixel((0, 0)) == (200, 200, 200)


def test_a_picture_too_large_by_its_header_is_not_decoded() -> None:
    bomb = encoded(Image.new("1", (10_000, 10_000)), "PNG")
    with pytest.raises(UnfitPicture, match="too_large: 10000 x 10000"):
        render(bomb, View())


@pytest.mark.parametrize("form", ["ICO", "PPM", "EPS", "PDF"])
def test_formats_outside_the_list_are_not_opened(form: str) -> None:
    with pytest.raises(UnfitPicture, match="undecodable: not a picture in any of JPEG"):
        render(encoded(Image.new("RGB", (32, 32)), form), View())


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    first = np.asarray(render(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), View()))
    assert first[0, 0].tolist() == [255, 0, 0]


def test_mutated_pictures_are_row_errors_never_exceptions(image_bundle: Path, picture: Callable[..., bytes]) -> None:
    random = np.random.default_rng(0)
    cells = []
    for index in range(300):
        data = bytearray(picture(form=("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")[index % 6]))
        for position in random.integers(0, len(data), 8):
            data[position] = random.integers(256)
        cells.append(bytes(data))
    work = ImageInput(load_bundle(image_bundle)).prepare(pa.chunked_array([pa.array(cells, pa.binary())]))
    assert len(work.lengths) + len(work.errors) == len(cells)
    assert 0 < len(work.errors) < 300


def test_a_file_in_the_working_directory_is_no_module_of_the_decoder(
    image_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    for name in ("resource.py", "json.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "in.parquet")
    program = f"import sys; sys.path[:0] = [{str(ROOT / 'pipeline')!r}]; from tfbatch.cli import main; main()"
    environment = {name: value for name, value in tfbatch_env().items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", program, "run", "in.parquet", "-m", str(image_bundle), "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["errors"] == 0


def buffers(cells: list[bytes]) -> list[pa.Buffer]:
    return [pa.py_buffer(cell) for cell in cells]


def test_pictures_go_together_and_large_ones_alone() -> None:
    sizes = [100] * (MANY + 1) + [TOGETHER, 1, 1, TOGETHER - 1, 2 * TOGETHER]
    groups = [[picture.nbytes for picture in group] for group in together(buffers([bytes(size) for size in sizes]))]
    assert groups == [[100] * MANY, [100], [TOGETHER], [1, 1], [TOGETHER - 1], [2 * TOGETHER]]
    assert list(together([])) == []


def test_pictures_that_go_together_are_what_each_is_by_itself(picture: Callable[..., bytes]) -> None:
    large = encoded(Image.new("RGB", (400, 300), "red"), "PNG")
    cells = [picture(seed=seed) for seed in range(40)] + [large] * 3 + [b"a cat", picture(seed=50)[:60], picture()]
    decoders, view = Decoders(), View()
    try:
        found = list(decoders.render_all(buffers(cells), view))
        assert list(decoders.measure_all(buffers(cells)))[40:44] == [(400, 300)] * 3 + [(0, 0)]
    finally:
        decoders.close()
    assert len(found) == len(cells)
    for cell, pixels in zip(cells, found, strict=True):
        if isinstance(pixels, UnfitPicture):
            with pytest.raises(UnfitPicture, match=re.escape(str(pixels))):
                render(cell, view)
        else:
            assert np.array_equal(pixels, np.asarray(render(cell, view)))
    assert [type(pixels) for pixels in found[43:45]] == [UnfitPicture] * 2


def test_of_pictures_that_go_together_one_that_ends_the_decoder_costs_no_other(
    picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Decoder.ask

    def ask_or_end(decoder: Decoder, pictures: list[memoryview], view: View | None) -> list[Found]:
        asked.append(len(pictures))
        if b"crash" in [bytes(picture) for picture in pictures]:
            raise EOFError
        return ask(decoder, pictures, view)

    monkeypatch.setattr(Decoder, "ask", ask_or_end)
    decoders = Decoders()
    try:
        found = list(decoders.render_all(buffers([picture(), picture(), b"crash", picture()]), View()))
    finally:
        decoders.close()
    assert [isinstance(pixels, UnfitPicture) for pixels in found] == [False, False, True, False]
    assert asked == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_what_others_do_to_a_decoder_is_no_pictures_error(number: int, picture: Callable[..., bytes]) -> None:
    """SIGALRM comes where it was stopped for a minute, SIGTERM where a service is ended with all of its processes."""
    decoders, cell = Decoders(), pa.py_buffer(picture())
    try:
        before = decoders.render(cell, View())
        os.kill(decoders._started[0]._process.pid, number)
        assert np.array_equal(decoders.render(cell, View()), before)
    finally:
        decoders.close()


def test_a_decoder_that_is_told_to_end_as_it_begins_begins(
    picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = child.start_child

    def start_and_end(*words: Any, **more: Any) -> subprocess.Popen[bytes]:
        process = start(*words, **more)
        os.kill(process.pid, signal.SIGTERM)
        return process

    monkeypatch.setattr(child, "start_child", start_and_end)
    decoders = Decoders()
    try:
        assert decoders.render(pa.py_buffer(picture()), View()).shape == (30, 40, 3)
    finally:
        decoders.close()


def test_memory_that_this_process_has_not_is_no_pictures_error(
    picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders, cell = Decoders(), pa.py_buffer(picture())

    def have_none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tfbatch.pictures.decoder_process.np.empty", have_none)
    with pytest.raises(MemoryError):
        decoders.render(cell, View())
    assert decoders._started == []
    monkeypatch.undo()
    try:
        assert decoders.render(cell, View()).shape == (30, 40, 3)
    finally:
        decoders.close()


def test_a_decoder_that_cannot_begin_fails_the_job_not_its_rows(
    image_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif '-P' in sys.orig_argv: raise SystemExit(7)")
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "in.parquet")
    sources = tfbatch_env()["PYTHONPATH"]
    words = ["run", tmp_path / "in.parquet", "-m", image_bundle, "-o", tmp_path / "out"]
    done = run_tfbatch(*words, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{sources}"})
    assert (done.code, "pictures cannot be decoded" in done.err) == (69, True), done.err


@pytest.mark.parametrize("resample", SMOOTH)
@pytest.mark.parametrize("size", [(28, 40), (110, 96), (160, 64)])
def test_a_large_jpeg_is_scaled_as_it_is_decoded_and_hardly_differs(
    resample: Image.Resampling, size: tuple[int, int]
) -> None:
    off = grey_levels_off(encoded(scene(), "JPEG", quality=90), View(size=size, resample=resample))
    assert 0 < off.mean() < 0.5
    assert off.max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(28, 40), (64, 20)])
def test_a_turned_jpeg_is_scaled_by_its_own_sides(orientation: int, size: tuple[int, int]) -> None:
    data = encoded(scene(), "JPEG", exif=turned(orientation))
    off = grey_levels_off(data, View(size=size, resample=Image.Resampling.BILINEAR))
    assert 0 < off.mean() < 0.5
    assert off.max() <= 8


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_keep_their_colours_when_they_are_scaled(mode: str) -> None:
    data = encoded(scene().convert(mode), "JPEG", quality=90)
    off = grey_levels_off(data, View(size=(40, 40), resample=Image.Resampling.BILINEAR))
    assert 0 < off.mean() < 0.5
    assert off.max() <= 8


def test_the_first_picture_of_several_in_a_jpeg_is_scaled_too() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[scene(seed=1)])
    off = grey_levels_off(data, View(size=(40, 40), resample=Image.Resampling.BILINEAR))
    assert 0 < off.mean() < 0.5


def test_a_scaled_jpeg_is_cropped_to_the_same_box() -> None:
    data = encoded(scene(), "JPEG", quality=90)
    off = grey_levels_off(data, View(size=(48, 48), resample=Image.Resampling.BICUBIC, crop=(32, 32)))
    assert off.shape == (32, 32, 3)
    assert 0 < off.mean() < 0.5


@pytest.mark.parametrize(
    ("form", "view"),
    [
        ("JPEG", View(size=(40, 40), resample=Image.Resampling.NEAREST)),
        ("JPEG", View(size=(40, 40), resample=Image.Resampling.BILINEAR, is_exact=True)),
        ("JPEG", View(size=(170, 40), resample=Image.Resampling.BILINEAR)),
        ("PNG", View(size=(40, 40), resample=Image.Resampling.BILINEAR)),
    ],
    ids=["nearest", "exact", "under six times the target", "not a JPEG"],
)
def test_what_is_not_scaled_has_the_very_pixels(form: str, view: View) -> None:
    assert not grey_levels_off(encoded(scene(), form), view).any()


def test_a_jpeg_too_large_by_its_header_is_refused_however_little_is_wanted_of_it() -> None:
    large = encoded(Image.new("L", (10_000, 5_001)), "JPEG")
    with pytest.raises(UnfitPicture, match="too_large: 10000 x 5001"):
        render(large, View(size=(32, 32), resample=Image.Resampling.BILINEAR))


def test_exact_decoding_gives_the_pixels_of_the_hubs_processor(image_bundle: Path, image_checkpoint: Path) -> None:
    data, bundle = encoded(scene(), "JPEG"), load_bundle(image_bundle)
    processor = AutoImageProcessor.from_pretrained(image_checkpoint, backend="pil")
    expected = processor(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"]
    for is_exact, least, most in ((True, 0, 1e-6), (False, 1e-4, 8 / 127)):
        work = ImageInput(bundle, is_exact=is_exact).prepare(pa.chunked_array([[data]]))
        off = np.abs(work.collate(np.array([0]), 17)["pixel_values"] - expected).max()
        assert least <= off <= most


def test_exact_decoding_is_another_job(image_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [encoded(scene(), "JPEG")]}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", image_bundle, "-o", tmp_path / "out", "--all-scores"]
    scores = []
    for more in ([], ["--exact-decoding", "--overwrite"]):
        assert run_tfbatch(*words, *more).code == 0
        scores.append(read_output(tmp_path / "out")["predicted_score"].to_pylist())
    assert scores[0] != scores[1]
    assert run_tfbatch(*words).code != 0
