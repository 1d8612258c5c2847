"""Masked image modelling: the model makes the parts of a picture that it does not see.

Random patches are hidden, or those that `--mask-column` paints over: inpainting. What the model saw
is pasted back, so that only the hidden parts are its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from tfbatch.batches import NO_RESULT, Feeds, Indices, Window, Work, evenly
from tfbatch.batching.cells import distinct, is_image
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.pictures.contact_sheet import Panel
from tfbatch.pictures.decoders import DECODERS
from tfbatch.pictures.generated import IMAGE, ImageEncoder
from tfbatch.pictures.images import Pixels, UnfitPicture
from tfbatch.pictures.masks import Mask, covered_pixels, listed_patches, random_patches, touched_patches
from tfbatch.pictures.pasting import Hidden, Pasting
from tfbatch.pictures.pixels import ImageProcessor, count_pixels, decode_all
from tfbatch.pictures.views import View
from tfbatch.results import Floats
from tfbatch.tasks._pictures import PictureTask

NO_MASK = "bad_mask: the mask is null"


class MaskedIm(PictureTask):
    side_columns: ClassVar[dict[str, str]] = {"mask_column": "mask"}
    default_model: ClassVar[str] = "inpaint"
    options: ClassVar[tuple[str, ...]] = (
        "mask_ratio", "mask_column", "seed", "keep_mask", "original_size", "exact_decoding",
        "images", "image_format", "image_quality", "contact_sheet",
    )  # fmt: skip

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._config = config
        self._encoder = ImageEncoder(config)
        settings = bundle.read_json("preprocessor_config.json")
        self._processor = ImageProcessor(settings, is_exact=config.exact_decoding)
        self._inputs = bundle.manifest.inputs
        self._pasting = Pasting(bundle, self._processor, is_known=config.mask_column is None)
        self._unit = bundle.setting("mask_unit")
        width, height = self._processor.size
        self._units = (width // self._unit) * (height // self._unit)
        ratio = config.mask_ratio
        self._masked_units = bundle.setting("masked_units") if ratio is None else round(ratio * self._units)
        if ratio is not None and self._masked_units == 0:
            one = f"{1 / self._units:.3g} hides one"
            raise UsageError(f"--mask-ratio {ratio} hides none of the {self._units} patches of this model; {one}")
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
            masked = [self._pasting.masked(result) if result else None for result in results]
            columns.append(self._encoder.column(masked))
        return columns

    def panels(self, result: Hidden) -> list[Panel]:
        assert result.made is not None
        masked = self._pasting.masked(result)
        return [Panel("input", result.source), Panel("masked", masked), Panel("generated", result.made)]

    @property
    def _view(self) -> View:
        """What is needed of a picture: all of it where it is pasted into."""
        seen = self._processor.view
        return View(on_white=seen.on_white) if self._config.original_size else seen

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
        hidden = np.zeros((len(waiting), self._pasting.patches), bool)
        for place, index in enumerate(waiting):
            hidden[place] = self._pasting.patches_of(results[index])

        def collate(inputs: Indices, _: int) -> Feeds:
            seen = [results[index].seen for index in waiting[inputs]]
            return {"pixel_values": self._processor.feed(seen), **self._mask_feeds(hidden[inputs])}

        def receive(inputs: Indices, outputs: Floats) -> None:
            for index, output in zip(waiting[inputs], outputs, strict=True):
                results[index] = replace(results[index], made=self._pasting.paste(results[index], output))

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

    def _mask_feeds(self, hidden: Mask) -> Feeds:
        """Hidden patches (B, patches) in the form the graph takes: `bool_masked_pos`; or for MAE
        `noise`, by which seen patches rank before hidden ones, and `visible`, how many are seen."""
        if "bool_masked_pos" in self._inputs:
            return {"bool_masked_pos": hidden}
        patches = hidden.shape[1]
        order = np.arange(patches, dtype=np.float32) / patches  # no two alike
        seen = patches - int(hidden[0].sum())  # as many in each row of the batch, which is one group
        return {"noise": hidden + order, "visible": np.arange(1 + seen)}


TASK = MaskedIm
