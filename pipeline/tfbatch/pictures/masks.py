"""Which patches of a picture are hidden from a model: by chance, or as a column says."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfbatch.pictures.images import Pixels, UnfitPicture
from tfbatch.pictures.pixels import ImageProcessor

Mask = npt.NDArray[np.bool_]
NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


def random_patches(seed: int, content: bytes, row: int, patches: int, hidden: int) -> Mask:
    """`hidden` of `patches` (patches,), from the seed, the picture's bytes and its row in the file.

    Nothing else has a say: not the batch, the threads, or where a run began.
    """
    digest = hashlib.sha256(f"{seed} {row} ".encode() + content).digest()
    numbers = np.random.PCG64(int.from_bytes(digest)).random_raw(patches)  # the same in every numpy
    mask = np.zeros(patches, bool)
    mask[np.argsort(numbers, kind="stable")[:hidden]] = True
    return mask


def listed_patches(entries: list[int | bool | None], patches: int) -> Mask:
    """The patches (patches,) that a list says are hidden: true or not zero.

    Raises:
        UnfitPicture: it is not one entry a patch, or an entry is null and says nothing.
    """
    if len(entries) != patches:
        raise UnfitPicture(f"bad_mask: the list has {len(entries)} entries, the model hides patches of {patches}")
    if None in entries:
        raise UnfitPicture(f"bad_mask: entry {entries.index(None)} of the list is null")
    return np.array([bool(entry) for entry in entries])


def covered_pixels(paint: Pixels, processor: ImageProcessor) -> Mask:
    """The model's pixels (H, W) that hold anything of a mask of any size, however thin."""
    width, height = processor.size
    if paint.shape == (height, width) and processor.box_in((width, height)) == (0, 0, width, height):
        return paint > 0
    return np.asarray(processor.fit(Image.fromarray(paint).convert("F"), Image.Resampling.BOX)) > 0


def touched_patches(pixels: Mask, side: int) -> Mask:
    """The patches ((H / side) x (W / side),) in which any pixel is set."""
    height, width = pixels.shape
    return pixels.reshape(height // side, side, width // side, side).any(axis=(1, 3)).ravel()


def enlarge(patches: Mask, width: int, times: int) -> Mask:
    """Patches in rows of `width`, each made `times` x `times`: (rows x times, width x times)."""
    return patches.reshape(-1, width).repeat(times, axis=0).repeat(times, axis=1)


def spread(values: npt.NDArray[np.float32], hidden: Mask) -> npt.NDArray[np.float32]:
    """Values (rows, columns, 2) of hidden patches (rows, columns) from those around them that are seen.

    A patch takes the mean of its eight neighbours, those nearest to a seen one first. With none
    seen at all each has a mean of zero and a variance of one.
    """
    if hidden.all():
        return np.broadcast_to(np.array([0, 1], np.float32), values.shape).copy()
    values, known = values.copy(), ~hidden
    while not known.all():
        total = np.zeros_like(values)
        count = np.zeros(known.shape, np.float32)
        for down, right in NEIGHBOURS:
            there = shifted(known, down, right)
            total += shifted(values, down, right) * there[..., None]
            count += there
        reached = ~known & (count > 0)
        values[reached] = total[reached] / count[reached][:, None]
        known |= reached
    return values


def shifted(grid: npt.NDArray[Any], down: int, right: int) -> npt.NDArray[Any]:
    """Each place's neighbour in one direction; beyond the border there is nothing."""
    result = np.zeros_like(grid)
    rows, columns = grid.shape[:2]
    to = (slice(max(down, 0), rows + min(down, 0)), slice(max(right, 0), columns + min(right, 0)))
    source = (slice(max(-down, 0), rows + min(-down, 0)), slice(max(-right, 0), columns + min(-right, 0)))
    result[to] = grid[source]
    return result
