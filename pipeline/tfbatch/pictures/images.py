"""Pictures to pixels: hostile bytes in, an upright picture of 8 bits or a reason out.

`decoder.py` does this in a process of its own, so this file imports little.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tfbatch.pictures.framing import Extent, Size
from tfbatch.pictures.scaled import scale_down, upright_extent

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 50_000_000
MAX_BYTES = 4 * MAX_PIXELS  # of a picture as it is encoded: as many pixels need no more
STRIP = 128  # rows of a picture that are copied at once
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # decode() asks the header itself and makes it that row's error
warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in pictures that decode all the same

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")


class UnfitPicture(Exception):
    """A picture that is not decoded, with the code and reason its row gets."""


def to_rgb(picture: Image.Image, *, on_white: bool = False) -> Image.Image:
    """A picture of any mode in 8-bit RGB; `on_white` the one colour that it says is transparent becomes white.

    Layers of transparency are left out either way, as `transformers.pipeline` does.
    """
    picture = to_eight_bits(picture)
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy it
    if on_white and picture.info.get("transparency") is not None:
        for top in range(0, picture.height, STRIP):  # in strips, since this makes four more copies
            strip = picture.crop((0, top, picture.width, min(top + STRIP, picture.height))).convert("RGBA")
            picture.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return picture


def decode(data: bytes, make: Callable[[Image.Image, Extent | None], Made], target: Size | int | None = None) -> Made:
    """What `make` makes of the first frame of a picture, upright, and of its extent where it is scaled.

    With a target a JPEG that is much larger is decoded at a part of its size, see `scaled`.

    Raises:
        UnfitPicture: not one of FORMATS, more than MAX_PIXELS by its header, broken or truncated.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UnfitPicture(f"too_large: {width} x {height} is over {MAX_PIXELS:,} pixels")
            scaled = None if target is None else scale_down(picture, target)
            ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
            return make(picture, upright_extent(picture.size, scaled) if scaled else None)
    except UnfitPicture:
        raise
    except UnidentifiedImageError:
        raise UnfitPicture(f"undecodable: not a picture in any of {', '.join(FORMATS)}") from None
    except MemoryError:
        raise UnfitPicture("too_large: decoding takes too much memory") from None
    except Exception as error:  # decoders of hostile bytes raise SyntaxError, struct.error, anything
        raise UnfitPicture(f"undecodable: the picture is broken ({type(error).__name__})") from error


def to_paint(picture: Image.Image) -> Pixels:
    """Where a picture of any mode is not black (H, W): levels of 16 bits, and those between whole numbers, are not
    rounded."""
    levels = np.asarray(picture) if picture.mode in (*SIXTEEN_BIT, "F") else to_pixels(to_rgb(picture)).any(axis=2)
    return np.asarray(levels > 0, np.uint8)


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


def measure(data: bytes) -> Size:
    """The width and height of a picture by its header, zeros where it has none or they are too many pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except Exception:  # noqa: BLE001 -- as in decode, which says what is wrong
        return 0, 0
    return (width, height) if width * height <= MAX_PIXELS else (0, 0)


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
