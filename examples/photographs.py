"""Photographs to train and to test on, from packages: none is in the repository.

Test pictures are those of the `scikit-image` wheel (public domain or CC0), which pip fetches.
Training pictures lie in the resource files of GCompris (Debian's package `gcompris-qt-data`).
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import download
from PIL import Image

HELD_OUT = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SCALE = 2
SHAVE = 4  # pixels at the border that are not measured
LUMA = np.array([65.481, 128.553, 24.966]) / 255
LEAST_SIDE = 240  # pixels; smaller pictures are icons
LEAST_COLOURS = 2_500  # in a thumbnail of 96 x 96; drawings have fewer


def held_out() -> dict[str, Image.Image]:
    """Six photographs by name, RGB, never trained on."""
    with zipfile.ZipFile(download("scikit-image==0.26.0")) as wheel:
        return {
            Path(name).stem: Image.open(io.BytesIO(wheel.read(f"skimage/data/{name}"))).convert("RGB")
            for name in HELD_OUT
        }


def pair(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A picture at half size, and whole, cut to even sides."""
    width, height = (side // SCALE for side in picture.size)
    whole = picture.crop((0, 0, width * SCALE, height * SCALE))
    return whole.resize((width, height), Image.Resampling.BICUBIC), whole


def luma_psnr(found: Image.Image | np.ndarray, wanted: Image.Image) -> float:
    """PSNR in dB of the Y channel (ITU-R BT.601), without the pixels at the border."""
    inner = slice(SHAVE, -SHAVE)
    there, here = (np.asarray(picture)[inner, inner] @ LUMA for picture in (found, wanted))
    return float(10 * np.log10(255**2 / np.square(there - here).mean()))


def training(folder: Path) -> Iterator[Image.Image]:
    """Photographs in the .rcc files below a folder, RGB, at half size, where they are sharp."""
    for file in sorted(folder.rglob("*.rcc")):
        for picture in pictures_in(file.read_bytes()):
            if min(picture.size) >= 2 * LEAST_SIDE and is_photograph(picture):
                yield picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)


def pictures_in(content: bytes) -> Iterator[Image.Image]:
    """The WebP and JPEG files that lie uncompressed in a Qt resource file: each behind its length."""
    for signature in (b"RIFF", b"\xff\xd8\xff"):
        start = content.find(signature, 4)
        while start >= 4:
            length = int.from_bytes(content[start - 4 : start], "big")
            try:
                with Image.open(io.BytesIO(content[start : start + length]), formats=("WEBP", "JPEG")) as picture:
                    if picture.mode == "RGB":
                        yield picture.convert("RGB")
            except OSError:  # the signature by chance, not a picture
                pass
            start = content.find(signature, start + 4)


def is_photograph(picture: Image.Image) -> bool:
    """Whether a picture has the many colours that a drawing has not."""
    thumbnail = np.asarray(picture.resize((96, 96))).reshape(-1, 3)
    return len(np.unique(thumbnail, axis=0)) >= LEAST_COLOURS
