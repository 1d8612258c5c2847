"""Picture cells to pictures: hostile bytes in, upright 8-bit RGB or a reason out."""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 50_000_000
STRIP = 128  # rows of a picture that are copied at once
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # decode() asks the header itself and makes it that row's error
warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in pictures that decode all the same

Pixels = npt.NDArray[np.uint8]


class UnfitPicture(Exception):
    """A picture that is not decoded, with the code and reason its row gets."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode in 8-bit RGB."""
    picture = to_eight_bits(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy it


def decode(data: pa.Buffer, make: Callable[[Image.Image], Image.Image] = to_rgb) -> Image.Image:
    """What `make` makes of the first frame of a picture, upright.

    Raises:
        UnfitPicture: not one of FORMATS, more than MAX_PIXELS by its header, broken or truncated.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UnfitPicture(f"too_large: {width} x {height} is over {MAX_PIXELS:,} pixels")
            ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
            return make(picture)
    except UnfitPicture:
        raise
    except UnidentifiedImageError:
        raise UnfitPicture(f"undecodable: not a picture in any of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders of hostile bytes raise SyntaxError, struct.error, anything
        raise UnfitPicture(f"undecodable: the picture is broken ({type(error).__name__})") from error


def to_pixels(picture: Image.Image) -> Pixels:
    """A picture (H, W, 3) as bytes; strip by strip, since Pillow makes two more copies of what it gives."""
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows, strip in strips(picture):
        pixels[rows] = strip
    return pixels


def strips(picture: Image.Image) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """A picture from top to bottom, some rows at a time."""
    for top in range(0, picture.height, STRIP):
        bottom = min(top + STRIP, picture.height)
        yield slice(top, bottom), np.asarray(picture.crop((0, top, picture.width, bottom)))


def pixels_of(data: pa.Buffer) -> int:
    """How many pixels a picture has by its header, 0 where it has none or they are too many."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except Exception:  # noqa: BLE001 -- as in decode, which says what is wrong
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def to_eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit greys to bytes; Pillow's own conversion would clip them to white.

    Mode I holds 32 bits and is used for 16 as for 8: it is scaled where a level is over 255.
    """
    if picture.mode not in SIXTEEN_BIT:
        return picture
    levels = np.asarray(picture).astype(np.float64)
    if picture.mode == "I" and levels.max() <= 255:
        levels *= 257
    return Image.fromarray(np.clip(np.rint(levels / 257), 0, 255).astype(np.uint8))
