"""Which of its pixels a model sees of a picture: all of them resized, or the middle of that."""

Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom
Extent = tuple[float, float, float, float]  # the same, between pixels


def resized_size(size: tuple[float, float], to: Size | int) -> Size:
    """What a picture of this (width, height) is resized to: as given, or keeping its shape so that its
    shorter edge is; the longer is rounded down, as the Hub's processors do."""
    if not isinstance(to, int):
        return to[0], to[1]
    width, height = size
    return (to, int(to * height / width)) if width <= height else (int(to * width / height), to)


def central_box(size: Size, crop: Size) -> Box:
    """The middle of a picture, half a pixel to the left and above it where there is none."""
    left, top = ((side - cropped) // 2 for side, cropped in zip(size, crop, strict=True))
    return left, top, left + crop[0], top + crop[1]


def part_of(extent: Extent, resized: Size, box: Box) -> Extent:
    """Where in a picture a box is of what its extent is resized to."""
    left, top, right, bottom = extent
    across, down = (right - left) / resized[0], (bottom - top) / resized[1]
    return left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down
