"""Pictures to pixels: hostile bytes in, upright 8-bit RGB or a reason out.

`decoder.py` does this in a process of its own, so this file imports little.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tfbatch.framing import Extent, Size, central_box, part_of, resized_size
from tfbatch.scaled import scale_down, upright_extent

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 50_000_000
MAX_BYTES = 4 * MAX_PIXELS  # of a picture as it is encoded: as many pixels need no more
TALL = 2  # times as tall as wide, from which on Pillow goes down before across
STRIP = 128  # rows of a picture that are copied at once
UNSTEADY = (Image.Resampling.NEAREST, Image.Resampling.BOX)  # take other pixels where a box is a hair off
SUPPORT = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}  # pixels to both sides; of the others one
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # decode() asks the header itself and makes it that row's error
warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in pictures that decode all the same

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")


class UnfitPicture(Exception):
    """A picture that is not decoded, with the code and reason its row gets."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode in 8-bit RGB."""
    picture = to_eight_bits(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy it


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


@dataclass(frozen=True, kw_only=True)
class View:
    """What is wanted of a picture: "rgb" (H, W, 3), resized to `size` (width, height) where one is
    given, or its shorter edge to that where it is a number, and then cropped to the middle of size
    `crop`; "levels" the same, but resized in float32 without rounding, (3 x H, W), red above green
    above blue; or "paint" (H, W), one where it is not black.

    What is resized has the very pixels of all of it resized only where it `is_exact`: else a large JPEG is
    decoded at a part of its size, and what `crop` leaves out is not computed. Nearest pixels and boxes are
    always exact: there would be others to choose from.
    """

    kind: str = "rgb"
    size: Size | int | None = None
    resample: int = Image.Resampling.NEAREST
    crop: Size | None = None
    is_exact: bool = False


def render(data: bytes, view: View) -> Image.Image:
    """A view of a picture: 8-bit RGB, or else a mode of one channel.

    Raises:
        UnfitPicture: see `decode`.
    """
    if view.kind == "paint":
        return decode(data, lambda picture, _: Image.fromarray(to_paint(picture)))
    if view.size is None:
        return decode(data, lambda picture, _: to_rgb(picture))
    is_exact = view.is_exact or view.resample in UNSTEADY
    resize = partial(fit, size=view.size, resample=view.resample, crop=view.crop, is_exact=is_exact)

    def make(picture: Image.Image, extent: Extent | None) -> Image.Image:
        change = partial(resize, extent=extent)
        return in_floats(to_rgb(picture), change) if view.kind == "levels" else change(to_rgb(picture))

    return decode(data, make, None if is_exact else view.size)


def fit(
    picture: Image.Image,
    *,
    size: Size | int,
    resample: int,
    crop: Size | None,
    extent: Extent | None = None,
    is_exact: bool = True,
) -> Image.Image:
    """A picture, or its extent, resized and then cropped to its middle.

    Where it need not be exact, only the middle is computed. Pillow rounds where that begins and ends to float32,
    which moves no level by more than two, and of photographs one in a thousand by one. Of a picture more than
    twice as tall as wide Pillow rounds levels between its two passes otherwise: that is resized whole.

    Raises:
        UnfitPicture: it is so long that resized by its shorter edge it would have more than MAX_PIXELS.
    """
    extent = extent or (0, 0, *picture.size)
    left, top, right, bottom = extent
    resized = resized_size((right - left, bottom - top), size)
    if isinstance(size, int) and resized[0] * resized[1] > MAX_PIXELS:
        raise UnfitPicture(f"too_large: resized to a shorter edge of {size} it is over {MAX_PIXELS:,} pixels")
    method = Image.Resampling(resample)
    if crop is None or tuple(crop) == resized:
        return picture if picture.size == resized else picture.resize(resized, method, extent)
    box = central_box(resized, crop)
    if picture.size == resized:
        return picture.crop(box)
    is_tall = picture.height > TALL * picture.width
    if is_exact or is_tall or min(box) < 0:  # around what is smaller than the crop, it is black
        return picture.resize(resized, method, extent).crop(box)
    return resize_part(picture, crop, method, part_of(extent, resized, box))


def resize_part(picture: Image.Image, size: Size, method: Image.Resampling, part: Extent) -> Image.Image:
    """A part of a picture, resized: the rows it is made of across, and then down, as Pillow does all of one that is
    not tall. Given a part it may go down first, and levels in between are rounded."""
    (width, height), (left, top, right, bottom) = size, part
    reach = SUPPORT.get(method, 1) * max(1.0, (bottom - top) / height) + 1
    first, last = max(0, int(top - reach)), min(picture.height, math.ceil(bottom + reach))
    rows = picture.crop((0, first, picture.width, last))
    across = rows.resize((width, rows.height), method, (left, 0, right, rows.height))
    return across.resize((width, height), method, (0, top - first, width, bottom - first))


def in_floats(picture: Image.Image, resize: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Each channel resized in float32, one below the other: Pillow has no picture of three floats."""
    channels = [resize(picture.getchannel(name).convert("F")) for name in "RGB"]
    width, height = channels[0].size
    levels = Image.new("F", (width, 3 * height))
    for index, channel in enumerate(channels):
        levels.paste(channel, (0, index * height))
    return levels


def to_paint(picture: Image.Image) -> Pixels:
    """Where a picture of any mode is not black (H, W): levels of 16 bits are not rounded."""
    levels = np.asarray(picture) if picture.mode in SIXTEEN_BIT else to_pixels(to_rgb(picture)).any(axis=2)
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
