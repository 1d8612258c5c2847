"""Pictures as cameras make them, and how far a view is from that of the picture resized whole."""

import io

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageDraw, ImageOps
from tfbatch.pictures.framing import central_box, resized_size
from tfbatch.pictures.views import View, render

ODD = (1003, 877)  # no side is a multiple of two
SMOOTH = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def scene(size: tuple[int, int] = ODD, seed: int = 0) -> Image.Image:
    """Coarse colours with sharp lines in them, as the edges of things are."""
    random = np.random.default_rng(seed)
    picture = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        ends = (random.random((2, 2)) * size).ravel().tolist()
        draw.line(ends, fill=tuple(random.integers(0, 256, 3).tolist()), width=size[0] // 80)
    return picture


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def grey_levels_off(data: bytes, view: View) -> npt.NDArray[np.int64]:
    """How far a view is from what Pillow gives of the picture at its full size."""
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    exact = upright.resize(resized_size(upright.size, view.size or upright.size), Image.Resampling(view.resample))
    exact = exact if view.crop is None else exact.crop(central_box(exact.size, view.crop))
    return np.abs(np.asarray(render(data, view), np.int64) - np.asarray(exact, np.int64))
