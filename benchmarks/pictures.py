"""Photographs of two sizes, clothes with holes and small crops, all distinct, from a seed."""

import io
import zipfile
from collections.abc import Iterator
from itertools import product

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from examples.data import FASHION_SAMPLE, download

PACKAGE = "scikit-image==0.26.0"
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
FARTHEST = 7  # pixels that clothes are shifted by, either way
Cell = dict[str, bytes | None]


def photographs() -> list[Image.Image]:
    """Real pictures, RGB."""
    with zipfile.ZipFile(download(PACKAGE)) as wheel:
        files = [io.BytesIO(wheel.read(f"skimage/data/{name}")) for name in PHOTOGRAPHS]
    return [Image.open(file).convert("RGB") for file in files]


def cell(picture: Image.Image, form: str, **options: int) -> Cell:
    """A picture in the form of Hugging Face `datasets`."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def crops(width: int, height: int, share: float) -> Iterator[Image.Image]:
    """Endless parts of photographs, each another place, size and mirroring, resized to one size."""
    sources, random = photographs(), np.random.default_rng(0)
    while True:
        for source in sources:
            side = share * random.uniform(0.7, 1) * min(source.width / width, source.height / height)
            wide, high = int(side * width), int(side * height)
            left, top = (int(random.integers(0, room + 1)) for room in (source.width - wide, source.height - high))
            part = source.crop((left, top, left + wide, top + high)).resize((width, height), Image.Resampling.BICUBIC)
            yield part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.integers(2) else part


def photos500() -> Iterator[Cell]:
    return (cell(picture, "JPEG", quality=90) for picture in crops(500, 375, 1))


def photos12mp() -> Iterator[Cell]:
    """4000 × 3000. What enlarging cannot give, texture of several scales, is added, as heavy as a camera's."""
    random = np.random.default_rng(1)
    for picture in crops(4000, 3000, 1):
        texture = np.zeros((3000, 4000), np.float32)
        for scale, strength in ((1, 3), (2, 5), (4, 6)):
            noise = Image.fromarray(random.normal(0, strength, (3000 // scale, 4000 // scale)).astype(np.float32))
            texture += np.asarray(noise.resize((4000, 3000), Image.Resampling.BILINEAR))
        pixels = np.asarray(picture, np.float32) + texture[:, :, None]
        yield cell(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=90)


def upscale() -> Iterator[Cell]:
    return (cell(picture, "PNG") for picture in crops(128, 96, 0.5))


def fashion() -> Iterator[Cell]:
    """The sample's pictures, then shifted ever further, so that no two are equal: 225 times as many."""
    sample = [Image.open(io.BytesIO(each["bytes"])) for each in pq.read_table(FASHION_SAMPLE)["image"].to_pylist()]
    steps = range(-FARTHEST, FARTHEST + 1)
    for right, down in sorted(product(steps, steps), key=lambda shift: (max(map(abs, shift)), shift)):
        for picture in sample:
            shifted = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, right, 0, 1, down))
            yield cell(shifted, "PNG")


def masks() -> Iterator[Cell]:
    """Endless holes: slanting strokes, white on black, 28 × 28."""
    random = np.random.default_rng(0)
    while True:
        mask = Image.new("L", (28, 28))
        middle, slant = random.uniform(9, 19), random.uniform(-7, 7)
        ImageDraw.Draw(mask).line((0, middle - slant, 27, middle + slant), 255, int(random.integers(5, 9)))
        yield cell(mask, "PNG")
