"""What is wanted of a picture: all of it, or resized and cropped as a model sees it, or where it is painted.

A `View` is also what a decoder is asked for, so this file too imports little.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image

from tfbatch.pictures.framing import Extent, Size, central_box, part_of, resized_size
from tfbatch.pictures.images import MAX_PIXELS, UnfitPicture, decode, to_paint, to_rgb

TALL = 2  # times as tall as wide, from which on Pillow goes down before across
UNSTEADY = (Image.Resampling.NEAREST, Image.Resampling.BOX)  # take other pixels where a box is a hair off
SUPPORT = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}  # pixels to both sides; of the others one


@dataclass(frozen=True, kw_only=True)
class View:
    """What is wanted of a picture: "rgb" (H, W, 3), resized to `size` (width, height) where one is
    given, or its shorter edge to that where it is a number, and then cropped to the middle of size
    `crop`; "levels" the same, but resized in float32 without rounding, (3 x H, W), red above green
    above blue; or "paint" (H, W), one where it is not black. `on_white` is as `to_rgb` has it.

    What is resized has the very pixels of all of it resized only where it `is_exact`: else a large JPEG is
    decoded at a part of its size, and what `crop` leaves out is not computed. Nearest pixels and boxes are
    always exact: there would be others to choose from.
    """

    kind: str = "rgb"
    on_white: bool = False
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
        return decode(data, lambda picture, _: to_rgb(picture, on_white=view.on_white))
    is_exact = view.is_exact or view.resample in UNSTEADY
    resize = partial(fit, size=view.size, resample=view.resample, crop=view.crop, is_exact=is_exact)

    def make(picture: Image.Image, extent: Extent | None) -> Image.Image:
        change = partial(resize, extent=extent)
        picture = to_rgb(picture, on_white=view.on_white)
        return in_floats(picture, change) if view.kind == "levels" else change(picture)

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
    twice as tall as wide, or whose shape is not kept, Pillow may round levels between its two passes otherwise: that
    is resized whole.

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
    keeps_shape = isinstance(size, int) or (right - left) * resized[1] == (bottom - top) * resized[0]
    is_steady = keeps_shape and picture.height <= TALL * picture.width
    if is_exact or not is_steady or min(box) < 0:  # around what is smaller than the crop, it is black
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
