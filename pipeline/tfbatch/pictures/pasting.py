"""What a model made of a picture's hidden parts, pasted into the picture."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tfbatch.bundle import Bundle
from tfbatch.pictures.images import Pixels, strips
from tfbatch.pictures.masks import Mask, enlarge, spread
from tfbatch.pictures.pixels import ImageProcessor
from tfbatch.results import Floats

GREY = 128  # of what is hidden


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A picture and what is hidden of it.

    `source` is the whole picture where it is pasted into, else what the model sees, `seen`;
    `units` (units,) are the squares hidden as one; `painted` (H, W) the pixels of `source` to be
    made anew where a mask image says so, else None: then all of the hidden squares are.
    """

    source: Pixels
    seen: Pixels
    units: Mask
    painted: Mask | None
    made: Pixels | None = None


class Pasting:
    """The patches of a bundle's model, and how their pixels come back into a picture.

    The model may have been trained on patches normalised one by one; `is_known` says whether what is
    hidden is in the picture, and so has a mean and deviation to give back.
    """

    def __init__(self, bundle: Bundle, processor: ImageProcessor, *, is_known: bool) -> None:
        self._processor = processor
        self._is_known = is_known
        self._patch, self._unit = bundle.setting("patch_size"), bundle.setting("mask_unit")
        self._normalised = bool(bundle.setting("norm_pix_loss"))

    @property
    def patches(self) -> int:
        """How many of them a picture has."""
        width, height = self._processor.size
        return (width // self._patch) * (height // self._patch)

    def patches_of(self, result: Hidden) -> Mask:
        """The hidden units as the model's patches (patches,)."""
        return enlarge(result.units, self._processor.size[0] // self._unit, self._unit // self._patch).ravel()

    def masked(self, result: Hidden) -> Pixels:
        """What the model saw of a picture, grey where it saw nothing."""
        hidden = enlarge(result.units, self._processor.size[0] // self._unit, self._unit)
        return np.where(hidden[..., None], np.uint8(GREY), result.seen)

    def paste(self, result: Hidden, output: Floats) -> Pixels:
        """The picture with its hidden parts made of the model's output (3, H, W)."""
        if self._normalised:
            output = self._denormalise(result, output)
        made = self._processor.restore(output)
        where = enlarge(result.units, self._processor.size[0] // self._unit, self._unit)
        if result.source is not result.seen:
            return self._paste_at_original_size(result, Image.fromarray(made), Image.fromarray(where))
        if result.painted is not None:
            where = where & result.painted
        pasted: Pixels = np.where(where[..., None], made, result.source)
        return pasted

    def _paste_at_original_size(self, result: Hidden, made: Image.Image, anew: Image.Image) -> Pixels:
        """The full picture with its hidden parts made anew, some rows of it at a time."""
        made, anew, place = self._at_original_size(result.source, made, anew)
        where = np.asarray(anew)
        if result.painted is not None:
            where = where & result.painted[place]
        pasted = result.source.copy()
        for rows, strip in strips(made):
            np.copyto(pasted[place][rows], strip, where=where[rows, :, None])
        return pasted

    def _at_original_size(
        self, source: Pixels, made: Image.Image, anew: Image.Image
    ) -> tuple[Image.Image, Image.Image, tuple[slice, slice]]:
        """What was made, and where it was, as large as the part of the picture that the model saw; and
        the place of that part."""
        height, width = source.shape[:2]
        left, top, right, bottom = self._processor.box_in((width, height))
        size = (max(right - left, 1), max(bottom - top, 1))
        left, top = min(left, width - size[0]), min(top, height - size[1])
        place = (slice(top, top + size[1]), slice(left, left + size[0]))
        return made.resize(size, Image.Resampling.BICUBIC), anew.resize(size, Image.Resampling.NEAREST), place

    def _denormalise(self, result: Hidden, output: Floats) -> Floats:
        """Give patches their mean and deviation back, which the model was trained without.

        They are the patch's own where the picture is known, and its visible neighbours' where the
        mask says that it is not.
        """
        columns, rows = (side // self._patch for side in self._processor.size)
        values = self._processor.normalise([result.seen])[0]
        patches = values.reshape(3, rows, self._patch, columns, self._patch).transpose(1, 3, 2, 4, 0)
        patches = patches.reshape(rows, columns, -1)
        statistics = np.stack([patches.mean(axis=2), patches.var(axis=2, ddof=1)], axis=2)
        if not self._is_known:
            statistics = spread(statistics, self.patches_of(result).reshape(rows, columns))
        mean, variance = (
            statistics[..., index].repeat(self._patch, axis=0).repeat(self._patch, axis=1) for index in (0, 1)
        )
        restored: Floats = output * np.sqrt(variance + np.float32(1e-6)) + mean
        return restored
