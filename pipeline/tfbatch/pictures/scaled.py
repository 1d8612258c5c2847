"""Large JPEGs, decoded at a half, a quarter or an eighth of their size.

A JPEG holds its pixels as frequencies in blocks of 8 x 8, and libjpeg can leave out the high ones,
which are nothing but work where the picture is made smaller anyway. What is then left to resize has
at least GAP times the target's sides: with twice, single pixels are ten grey levels off those of the
full picture, with three times five at most and a quarter in the mean (`examples/scaled.py`).
"""

from dataclasses import dataclass

from PIL import ExifTags, Image

from tfbatch.pictures.framing import Extent, Size, resized_size

GAP = 3
SWAPPED = (5, 6, 7, 8)  # orientations of EXIF by which width and height change places
FROM_THE_RIGHT = (2, 3, 6, 7)  # by which the left edge was the far one, right or bottom
FROM_THE_BOTTOM = (3, 4, 7, 8)  # by which the top edge was


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """How much of a picture that was scaled down is picture: an eighth of 1,001 pixels is 125.125,
    which take 126. `orientation` is EXIF's; the sides are those before it turns the picture."""

    width: float
    height: float
    orientation: int


def scale_down(picture: Image.Image, target: Size | int) -> Scaled | None:
    """Have a JPEG that is not loaded yet decoded at a part of its size, colours as they are; the target
    is a size, or that of the shorter edge.

    None where it is decoded whole: no JPEG, or not large enough.
    """
    if picture.format not in ("JPEG", "MPO"):
        return None
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if not isinstance(target, int) and orientation in SWAPPED:
        target = target[1], target[0]
    width, height = (GAP * side for side in resized_size(picture.size, target))
    if picture.width < 2 * width or picture.height < 2 * height:
        return None
    drafted = picture.draft(None, (width, height))
    if drafted is None:
        return None
    _, (_, _, right, bottom) = drafted
    return Scaled(width=right, height=bottom, orientation=orientation)


def upright_extent(size: Size, scaled: Scaled) -> Extent:
    """Where the picture is in what was decoded and turned, which has this size."""
    across, down = scaled.width, scaled.height
    if scaled.orientation in SWAPPED:
        across, down = down, across
    left = size[0] - across if scaled.orientation in FROM_THE_RIGHT else 0.0
    top = size[1] - down if scaled.orientation in FROM_THE_BOTTOM else 0.0
    return left, top, left + across, top + down
