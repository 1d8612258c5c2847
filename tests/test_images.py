import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, run_tfbatch, tfbatch_env
from PIL import Image
from tfbatch.bundle import load_bundle
from tfbatch.images import UnfitPicture, View, render, to_eight_bits
from tfbatch.pixels import ImageInput
from transformers import AutoImageProcessor


def test_pixels_are_those_of_the_hubs_processor(
    image_bundle: Path, image_checkpoint: Path, picture: Callable[..., bytes]
) -> None:
    processor = AutoImageProcessor.from_pretrained(image_checkpoint, backend="pil")
    for size in ((40, 30), (32, 32), (7, 300), (1, 1)):
        data = picture(size)
        work = ImageInput(load_bundle(image_bundle)).prepare(pa.chunked_array([[data]]))
        found = work.collate(np.array([0]), 17)["pixel_values"]
        expected = processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


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


def test_a_decoder_that_cannot_begin_fails_the_job_not_its_rows(
    image_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif '-P' in sys.orig_argv: raise SystemExit(7)")
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "in.parquet")
    sources = tfbatch_env()["PYTHONPATH"]
    words = ["run", tmp_path / "in.parquet", "-m", image_bundle, "-o", tmp_path / "out"]
    done = run_tfbatch(*words, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{sources}"})
    assert (done.code, "pictures cannot be decoded" in done.err) == (69, True), done.err
