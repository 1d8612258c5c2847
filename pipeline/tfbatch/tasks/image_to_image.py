"""A picture for each picture: super-resolution, in tiles where a picture is large."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tfbatch.batches import Feeds, Indices, Pictures, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.pictures.contact_sheet import SIDE, Panel, liveliest
from tfbatch.pictures.generated import IMAGE, ImageEncoder
from tfbatch.pictures.images import Pixels, UnfitPicture
from tfbatch.pictures.pixels import count_pixels, decode_all, normalised_levels, to_bytes
from tfbatch.pictures.views import View
from tfbatch.results import Floats
from tfbatch.tasks._pictures import PictureTask

MAX_PIXELS = 200_000_000  # of what is made
TILE = 192  # pixels; the longest side that goes through the model at once
OVERLAP = 32  # pixels that neighbouring tiles share at least; each gives up its half of them


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """A picture `source` (H, W, 3) and what is made of it, tile by tile: `made` (scale H, scale W, 3)."""

    source: Pixels
    made: Pixels
    rows: "list[Span]"
    columns: "list[Span]"


@dataclass(frozen=True, kw_only=True)
class Span:
    """A tile along one axis: `length` pixels from `start`; those from `keep` to `stop` are kept."""

    start: int
    length: int
    keep: int
    stop: int


class ImageToImage(PictureTask):
    default_model: ClassVar[str] = "upscale"
    options: ClassVar[tuple[str, ...]] = ("images", "image_format", "image_quality", "contact_sheet")

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column = column
        self._encoder = ImageEncoder(config)
        self._scale, self._multiple = bundle.setting("scale"), bundle.setting("multiple")
        self._levels = normalised_levels({"do_normalize": False} | bundle.read_json("preprocessor_config.json"))

    @staticmethod
    def columns(_: RunConfig, __: Bundle | None = None) -> pa.Schema:
        """`generated_image`."""
        return pa.schema([pa.field("generated_image", IMAGE)])

    def weigh(self, window: Window) -> Indices:
        """The row, its picture, what is made of it, and that again, with four bytes a pixel, when it is encoded."""
        return evenly(window) + count_pixels(window.rows.column(self._column)) * (3 + 10 * self._scale**2)

    def prepare(self, window: Window) -> Work:
        """Decode each distinct picture and lay tiles over it."""
        results, result_of_row, errors = decode_all(window.rows.column(self._column), View(), self._lay_out)
        tiles = [
            (index, rows, columns)
            for index, result in enumerate(results)
            for rows in result.rows
            for columns in result.columns
        ]
        sizes = np.array([(rows.length, columns.length) for _, rows, columns in tiles], np.int64).reshape(-1, 2)

        def collate(inputs: Indices, _: int) -> Feeds:
            chosen = [tiles[index] for index in inputs]
            batch = [cut_tile(results[index].source, rows, columns) for index, rows, columns in chosen]
            return {"pixel_values": Pictures(pixels=batch, levels=self._levels)}

        def receive(inputs: Indices, outputs: Floats) -> None:
            for chosen, output in zip(inputs, outputs, strict=True):
                index, rows, columns = tiles[chosen]
                self._paste(results[index].made, to_bytes(output * np.float32(255)), rows, columns)

        return Work(
            lengths=sizes.prod(axis=1),
            groups=sizes[:, 0] << 32 | sizes[:, 1],
            result_of_input=np.array([index for index, _, _ in tiles], np.int64),
            result_of_row=result_of_row,
            results=results,
            errors=errors,
            collate=collate,
            receive=receive,
        )

    def finish(self, results: Sequence[Enlarged | None]) -> list[pa.Array]:
        return [self._encoder.column([result.made if result else None for result in results])]

    def panels(self, result: Enlarged) -> list[Panel]:
        """The whole picture, and of a detail its pixels, what bicubic interpolation makes of them, and the model."""
        rows, columns = liveliest(result.source, SIDE // self._scale)
        detail = Image.fromarray(result.source[rows, columns])
        size = (detail.width * self._scale, detail.height * self._scale)
        large = (slice(rows.start * self._scale, rows.stop * self._scale),
                 slice(columns.start * self._scale, columns.stop * self._scale))  # fmt: skip
        height, width = result.source.shape[:2]
        return [
            Panel(f"input, {width} x {height}", result.source),
            Panel("detail of the input", np.asarray(detail.resize(size, Image.Resampling.NEAREST))),
            Panel(f"bicubic x{self._scale}", np.asarray(detail.resize(size, Image.Resampling.BICUBIC))),
            Panel(f"generated x{self._scale}", result.made[large]),
        ]

    def _lay_out(self, source: Pixels) -> Enlarged:
        height, width = (side * self._scale for side in source.shape[:2])
        if width * height > MAX_PIXELS:
            raise UnfitPicture(f"too_large: made {self._scale} times as large it is over {MAX_PIXELS:,} pixels")
        self._encoder.check_size(width, height)
        return Enlarged(
            source=source,
            made=np.empty((height, width, 3), np.uint8),
            rows=lay_tiles(source.shape[0], self._multiple),
            columns=lay_tiles(source.shape[1], self._multiple),
        )

    def _paste(self, made: Pixels, tile: Pixels, rows: Span, columns: Span) -> None:
        """Put the part of a tile that is kept in its place."""
        down, right = (self._places(span) for span in (rows, columns))
        made[down[0], right[0]] = tile[down[1], right[1]]

    def _places(self, span: Span) -> tuple[slice, slice]:
        """Where what is kept lies in what is made, and in the tile."""
        keep, stop, start = (place * self._scale for place in (span.keep, span.stop, span.start))
        return slice(keep, stop), slice(keep - start, stop - start)


def lay_tiles(side: int, multiple: int) -> list[Span]:
    """Tiles of one length over a side in pixels, padded as the Hub's processor does: to the next multiple,
    one more where it is one already.

    They begin at multiples, as the windows of attention do, and together keep each pixel once.
    """
    padded = side // multiple + 1  # this and the next three in multiples
    shared = -(-OVERLAP // multiple)
    count = max(1, -(-(padded - shared) // max(TILE // multiple - shared, 1)))
    across = -(-(padded + (count - 1) * shared) // count)
    length = across * multiple
    starts = [min(index * (across - shared), padded - across) * multiple for index in range(count)]
    cuts = [0, *((left + length + right) // 2 for left, right in pairwise(starts)), side]
    return [
        Span(start=start, length=length, keep=min(keep, side), stop=min(stop, side))
        for start, (keep, stop) in zip(starts, pairwise(cuts), strict=True)
    ]


def cut_tile(source: Pixels, rows: Span, columns: Span) -> Pixels:
    """A tile of a picture that goes on, mirrored, below and to the right."""
    height, width = source.shape[:2]
    tile: Pixels = source[mirrored(rows, height)[:, None], mirrored(columns, width)]
    return tile


def mirrored(span: Span, side: int) -> npt.NDArray[np.int64]:
    """The pixels of a tile, where a side goes on as its mirror image."""
    places = np.arange(span.start, span.start + span.length) % (2 * side)
    return np.minimum(places, 2 * side - 1 - places)


TASK = ImageToImage
