"""Super-resolution: any size in, so many times as large out, in tiles where it is large."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, read_output, run_tfbatch
from pictures import PictureModel, pixels, png, scene
from PIL import Image
from tfbatch.tasks.image_to_image import OVERLAP, TILE, lay_tiles
from transformers import AutoImageProcessor, Swin2SRForImageSuperResolution

SIZES = [(1, 1), (7, 9), (8, 8), (64, 64), (100, 37), (37, 100), (255, 3)]


@torch.inference_mode()
def made_by_torch(checkpoint: Path, pictures: list[Image.Image]) -> list[Any]:
    """With the Hub's own processor and model, whole pictures, cut to scale."""
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    model = Swin2SRForImageSuperResolution.from_pretrained(checkpoint, dtype=torch.float32).eval()
    made = []
    for picture in pictures:
        values = processor(picture, return_tensors="pt")["pixel_values"]
        output = model(pixel_values=values).reconstruction[0, :, : 2 * picture.height, : 2 * picture.width]
        made.append(np.clip(np.rint(output.numpy() * 255), 0, 255).transpose(1, 2, 0))
    return made


def upscale(bundle: Path, pictures: list[Image.Image], folder: Path, *words: object) -> pa.Table:
    pq.write_table(pa.table({"image": [png(picture) for picture in pictures]}), folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", "--overwrite", *words)
    assert done.code == 0, done.err
    return read_output(folder / "out")


def test_pictures_are_those_of_the_hubs_processor_and_model(picture_model: PictureModel, tmp_path: Path) -> None:
    checkpoint, bundle = picture_model("swin2sr")
    pictures = [scene(index, size) for index, size in enumerate(SIZES)]
    output = upscale(bundle, pictures, tmp_path)
    assert output["error"].null_count == len(pictures)
    for cell, wanted in zip(output["generated_image"], made_by_torch(checkpoint, pictures), strict=True):
        found = pixels(cell.as_py())
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1


def test_a_large_picture_in_tiles_looks_as_if_made_whole(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(png(scene(5, (700, 300))))) as picture:
        pictures = [picture.convert("RGB")]
    found = pixels(upscale(ROOT / "models" / "upscale", pictures, tmp_path)["generated_image"][0].as_py())
    (wanted,) = made_by_torch(ROOT / "examples" / "upscale", pictures)
    assert np.abs(found - wanted).max() <= 4
    assert (np.abs(found - wanted) > 1).mean() < 0.001


@pytest.mark.parametrize("multiple", [8, 16, 64])
def test_tiles_keep_each_pixel_once_and_share_what_is_near_their_edges(multiple: int) -> None:
    for side in [*range(1, 700), 5999, 6000]:
        spans = lay_tiles(side, multiple)
        kept = [place for span in spans for place in range(span.keep, span.stop)]
        assert kept == list(range(side))
        assert {span.length for span in spans} == {spans[0].length}
        assert spans[0].length <= TILE
        padded = (side // multiple + 1) * multiple
        assert (spans[0].start, spans[-1].start + spans[-1].length) == (0, padded)
        for left, right in pairwise(spans):
            assert left.start + left.length - right.start >= OVERLAP
            assert right.start % multiple == 0


def test_batches_and_threads_change_no_picture(picture_model: PictureModel, tmp_path: Path) -> None:
    pictures = [scene(index, SIZES[index % len(SIZES)]) for index in range(14)] + [scene(99, (300, 20))]
    settings = [("--threads", 1), ("--threads", 2), ("--batch-tokens", 1), ("--batch-tokens", 50_000)]
    outputs = [upscale(picture_model("swin2sr")[1], pictures, tmp_path, *words) for words in settings]
    first = [pixels(cell.as_py()) for cell in outputs[0]["generated_image"]]
    for output in outputs[1:]:
        for found, cell in zip(first, output["generated_image"], strict=True):
            difference = np.abs(found - pixels(cell.as_py()))
            assert difference.max() <= 1
            assert difference.mean() <= 0.001


def test_what_the_format_cannot_hold_is_that_rows_error(
    picture_model: PictureModel, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    cells = [picture((9000, 1)), picture((9, 9)), b"junk", None]
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", picture_model("swin2sr")[1], "-o", tmp_path / "out"]
    done = run_tfbatch(*words, "--image-format", "webp")
    assert done.code == 0, done.err
    output = read_output(tmp_path / "out")
    assert output["error"].to_pylist() == [
        "too_large: 18000 x 2 is more than webp holds, 16,383 pixels a side",
        None,
        "undecodable: not a picture in any of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF",
        "null: the cell is null",
    ]
    assert Image.open(io.BytesIO(output["generated_image"][1].as_py()["bytes"])).format == "WEBP"
