"""Masked image modelling: the model makes the parts of a picture that it does not see.

Random patches are hidden, or those that `--mask-column` paints over: inpainting. What the model saw
is pasted back, so that only the hidden parts are its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from tfbatch.batches import NO_RESULT, Feeds, Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.cells import distinct, is_image
from tfbatch.config import RunConfig
from tfbatch.contact_sheet import Panel
from tfbatch.decoders import DECODERS
from tfbatch.generated import IMAGE, ImageEncoder
from tfbatch.images import Pixels, UnfitPicture, View, strips
from tfbatch.masks import (
    Mask,
    covered_pixels,
    enlarge,
    listed_patches,
    random_patches,
    spread,
    touched_patches,
)
from tfbatch.pixels import ImageProcessor, count_pixels, decode_all
from tfbatch.results import Floats

GREY = 128  # of what is hidden, in `masked_image`
NO_MASK = "bad_mask: the mask is null"


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


class MaskedIm:
    kind: ClassVar[str] = "image"
    side_columns: ClassVar[dict[str, str]] = {"mask_column": "mask"}
    default_model: ClassVar[str] = "inpaint"
    options: ClassVar[tuple[str, ...]] = (
        "mask_ratio", "mask_column", "seed", "keep_mask", "original_size", "exact_decoding",
        "images", "image_format", "image_quality", "contact_sheet",
    )  # fmt: skip
    window_rows: ClassVar[int] = 64
    window_bytes: ClassVar[int] = 16 << 20
    prepares_in_parallel: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._config = config
        self._encoder = ImageEncoder(config)
        settings = bundle.read_json("preprocessor_config.json")
        self._processor = ImageProcessor(settings, is_exact=config.exact_decoding)
        self._inputs = bundle.manifest.inputs
        self._patch, self._unit = bundle.setting("patch_size"), bundle.setting("mask_unit")
        self._normalised_patches = bool(bundle.setting("norm_pix_loss"))
        width, height = self._processor.size
        self._units = (width // self._unit) * (height // self._unit)
        ratio = config.mask_ratio
        self._masked_units = bundle.setting("masked_units") if ratio is None else round(ratio * self._units)
        self._tokens = bundle.setting("tokens_per_image")

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        """`generated_image`; with --keep-mask also `masked_image`, grey where the model saw nothing."""
        names = ["generated_image", "masked_image"] if config.keep_mask else ["generated_image"]
        return pa.schema([pa.field(name, IMAGE) for name in names])

    def weigh(self, window: Window) -> Indices:
        """The row, and what the model sees, a few times over; with --original-size also the picture, what is made
        of it and copies on the way, and the mask."""
        width, height = self._processor.size
        weights = evenly(window) + 12 * width * height
        if self._config.original_size:
            weights += 12 * count_pixels(window.rows.column(self._column))
            masks = window.rows.column(self._config.mask_column) if self._config.mask_column is not None else None
            if masks is not None and is_image(masks.type):
                weights += 8 * count_pixels(masks)
        return weights

    def prepare(self, window: Window) -> Work:
        """Decode each distinct picture, and hide parts of it for each row that holds it."""
        cells = window.rows.column(self._column)
        values, value_of_row, _ = distinct(cells)
        pictures, picture_of_row, errors = decode_all(cells, self._view, self._fit)
        results: list[Hidden | None] = []
        result_of_row = np.full(len(cells), NO_RESULT, np.int64)
        masks = self._masks(window)
        for row, (picture, mask) in enumerate(zip(picture_of_row.tolist(), masks, strict=True)):
            if picture == NO_RESULT:
                continue
            source, seen = pictures[picture]
            try:
                content = values[int(value_of_row[row])].as_buffer()
                hidden = self._hide(source, seen, mask, content, window.first + row)
            except UnfitPicture as error:
                errors[row] = str(error)
                continue
            result_of_row[row] = len(results)
            results.append(hidden)
        return self._work(results, result_of_row, errors)

    def finish(self, results: Sequence[Hidden | None]) -> list[pa.Array]:
        columns = [self._encoder.column([result.made if result else None for result in results])]
        if self._config.keep_mask:
            columns.append(self._encoder.column([self._masked(result) if result else None for result in results]))
        return columns

    def panels(self, result: Hidden) -> list[Panel]:
        assert result.made is not None
        return [Panel("input", result.source), Panel("masked", self._masked(result)), Panel("generated", result.made)]

    @property
    def _view(self) -> View:
        """What is needed of a picture: all of it where it is pasted into."""
        return View() if self._config.original_size else self._processor.view

    def _fit(self, pixels: Pixels) -> tuple[Pixels, Pixels]:
        """The picture to paste into, and what the model sees of it."""
        if not self._config.original_size:
            return pixels, pixels
        height, width = pixels.shape[:2]
        self._encoder.check_size(width, height)
        return pixels, np.asarray(self._processor.fit(Image.fromarray(pixels)))

    def _masks(self, window: Window) -> Iterator[Any]:
        """What the cells of --mask-column say is hidden: what is painted (H, W), a list, or None; None for
        all without it. No more painted masks are decoded ahead than the decoders answer at once."""
        if self._config.mask_column is None:
            yield from [None] * window.rows.num_rows
            return
        cells = window.rows.column(self._config.mask_column)
        if not is_image(cells.type):
            yield from (cell.as_py() for cell in cells)
            return
        values, value_of_row, _ = distinct(cells)
        given = (values[index].as_buffer() for index in value_of_row.tolist() if index != NO_RESULT)
        paints = DECODERS.render_all(given, View(kind="paint"))
        yield from (None if index == NO_RESULT else next(paints) for index in value_of_row.tolist())

    def _hide(self, source: Pixels, seen: Pixels, mask: Any, content: pa.Buffer, row: int) -> Hidden:
        """The parts of a picture that a row hides."""
        if self._config.mask_column is None:
            units = random_patches(self._config.seed, content.to_pybytes(), row, self._units, self._masked_units)
            return Hidden(source=source, seen=seen, units=units, painted=None)
        if mask is None:
            raise UnfitPicture(NO_MASK)
        if isinstance(mask, list):
            units = listed_patches(mask, self._units)
            return Hidden(source=source, seen=seen, units=units, painted=None)
        if isinstance(mask, UnfitPicture):
            raise UnfitPicture(f"bad_mask: {mask}") from mask
        painted = covered_pixels(mask, self._processor)
        units = touched_patches(painted, self._unit)
        if self._config.original_size:
            height, width = source.shape[:2]
            painted = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)) > 0
        return Hidden(source=source, seen=seen, units=units, painted=painted)

    def _work(self, results: list[Hidden | None], result_of_row: Indices, errors: dict[int, str]) -> Work:
        """Pictures of which nothing is hidden are their own result and go through no model."""
        for index, result in enumerate(results):
            if result is not None and not result.units.any():
                results[index] = replace(result, made=result.source)
        waiting = np.array([index for index, result in enumerate(results) if result and result.made is None], np.int64)
        hidden = np.zeros((len(waiting), self._units * (self._unit // self._patch) ** 2), bool)
        for place, index in enumerate(waiting):
            hidden[place] = self._patches(results[index])

        def collate(inputs: Indices, _: int) -> Feeds:
            seen = [results[index].seen for index in waiting[inputs]]
            return {"pixel_values": self._processor.feed(seen), **self._mask_feeds(hidden[inputs])}

        def receive(inputs: Indices, outputs: Floats) -> None:
            for index, output in zip(waiting[inputs], outputs, strict=True):
                results[index] = replace(results[index], made=self._paste(results[index], output))

        return Work(
            lengths=np.full(len(waiting), self._tokens, np.int64),
            groups=hidden.sum(axis=1) if "noise" in self._inputs else np.zeros(len(waiting), np.int64),
            result_of_input=waiting,
            result_of_row=result_of_row,
            results=results,
            errors=errors,
            collate=collate,
            receive=receive,
        )

    def _patches(self, result: Hidden) -> Mask:
        """The hidden units as the model's patches (patches,)."""
        return enlarge(result.units, self._processor.size[0] // self._unit, self._unit // self._patch).ravel()

    def _mask_feeds(self, hidden: Mask) -> Feeds:
        """Hidden patches (B, patches) in the form the graph takes: `bool_masked_pos`; or for MAE
        `noise`, by which seen patches rank before hidden ones, and `visible`, how many are seen."""
        if "bool_masked_pos" in self._inputs:
            return {"bool_masked_pos": hidden}
        patches = hidden.shape[1]
        order = np.arange(patches, dtype=np.float32) / patches  # no two alike
        seen = patches - int(hidden[0].sum())  # as many in each row of the batch, which is one group
        return {"noise": hidden + order, "visible": np.arange(1 + seen)}

    def _paste(self, result: Hidden, output: Floats) -> Pixels:
        """The picture with its hidden parts made of the model's output (3, H, W)."""
        if self._normalised_patches:
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
        if self._config.mask_column is not None:
            statistics = spread(statistics, self._patches(result).reshape(rows, columns))
        mean, variance = (
            statistics[..., index].repeat(self._patch, axis=0).repeat(self._patch, axis=1) for index in (0, 1)
        )
        restored: Floats = output * np.sqrt(variance + np.float32(1e-6)) + mean
        return restored

    def _masked(self, result: Hidden) -> Pixels:
        """What the model saw of a picture, grey where it saw nothing."""
        hidden = enlarge(result.units, self._processor.size[0] // self._unit, self._unit)
        return np.where(hidden[..., None], np.uint8(GREY), result.seen)


TASK = MaskedIm
