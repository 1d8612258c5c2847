"""Pictures to a model's pixels and back: what the Hub's image processor does, with Pillow and numpy alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tfbatch.batches import Array, Feeds, Indices, Pictures, Work, one_result_each
from tfbatch.batching.cells import distinct, keep_valid
from tfbatch.bundle import Bundle
from tfbatch.pictures.decoders import DECODERS
from tfbatch.pictures.framing import central_box, part_of, resized_size
from tfbatch.pictures.images import Pixels, UnfitPicture
from tfbatch.pictures.views import View, fit
from tfbatch.results import Floats

UNROUNDED = {"DINOv3ViTImageProcessor"}  # of transformers' processors


class ImageProcessor:
    """The steps of a `preprocessor_config.json`: resize, central crop, rescale, normalise.

    `size` is the (width, height) of what the model sees. A processor of UNROUNDED resizes in float32
    what others resize in bytes.
    """

    def __init__(self, settings: dict[str, Any], *, is_exact: bool = False) -> None:
        self._is_exact = is_exact
        size = settings["size"]
        self._resized = int(size["shortest_edge"]) if "shortest_edge" in size else (size["width"], size["height"])
        cropped = settings["crop_size"] if settings.get("do_center_crop") else size
        self.size = (int(cropped["width"]), int(cropped["height"]))
        self._resample = Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR))
        self._levels = normalised_levels(settings)
        self._on_white = bool(settings.get("do_convert_rgb"))
        self._kind = "levels" if settings.get("image_processor_type") in UNROUNDED else "rgb"

    @property
    def view(self) -> View:
        """What the model sees of a picture, to be had of a decoder."""
        return View(
            kind=self._kind,
            on_white=self._on_white,
            size=self._resized,
            resample=self._resample,
            crop=self.size,
            is_exact=self._is_exact,
        )

    def fit(self, picture: Image.Image, resample: Image.Resampling | None = None) -> Image.Image:
        """What the model sees of a picture, by the processor's resampling or another."""
        resample = self._resample if resample is None else resample
        return fit(picture, size=self._resized, resample=resample, crop=self.size)

    def box_in(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Which part of a picture of this (width, height) the model sees: left, top, right, bottom."""
        resized = resized_size(size, self._resized)
        left, top, right, bottom = part_of((0, 0, *size), resized, central_box(resized, self.size))
        return round(left), round(top), round(right), round(bottom)

    def feed(self, pictures: Sequence[Pixels]) -> Array | Pictures:
        """B times what `view` asks for, (H, W, 3) bytes or (3 x H, W) float32 levels, as (B, 3, H, W) float32,
        which bytes become when they are wanted as an array."""
        if self._kind != "levels":
            return Pictures(pixels=pictures, levels=self._levels)
        darkest, brightest = self._levels[:, :1, None], self._levels[:, -1:, None]
        levels = np.array(pictures, np.float32).reshape(len(pictures), 3, *self.size[::-1])
        return darkest + levels * ((brightest - darkest) / np.float32(255))

    def normalise(self, pictures: Sequence[Pixels]) -> Floats:
        """The same as an array."""
        return np.asarray(self.feed(pictures), np.float32)

    def restore(self, values: Floats) -> Pixels:
        """(3, H, W) float32 as `normalise` gives them to (H, W, 3) bytes."""
        darkest, brightest = self._levels[:, :1, None], self._levels[:, -1:, None]
        levels = (values - darkest) * (np.float32(255) / (brightest - darkest))
        return to_bytes(levels)


def to_bytes(levels: Floats) -> Pixels:
    """(3, H, W) float32 levels from 0 to 255 to (H, W, 3) bytes, rounded."""
    pixels: Pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels


def normalised_levels(settings: dict[str, Any]) -> npt.NDArray[np.float32]:
    """What each of a byte's 256 levels becomes in each channel: (3, 256) float32."""
    levels = np.tile(np.arange(256, dtype=np.float32), (3, 1))
    if settings.get("do_rescale", True):
        levels *= np.float32(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        mean, std = (np.array(settings[name], np.float32)[:, None] for name in ("image_mean", "image_std"))
        levels = (levels - mean) / std
    return levels


class ImageInput:
    """Turns an image column into normalised pixels (B, 3, H, W) float32; they stay bytes until collated."""

    def __init__(self, bundle: Bundle, *, is_exact: bool = False) -> None:
        self._processor = ImageProcessor(bundle.read_json("preprocessor_config.json"), is_exact=is_exact)
        self._tokens = bundle.setting("tokens_per_image")

    @property
    def weight(self) -> int:
        """Bytes that a picture takes while it waits for the model."""
        width, height = self._processor.size
        return 3 * width * height * (4 if self._processor.view.kind == "levels" else 1)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        """Decode and resize each distinct picture; null and undecodable ones are row errors."""
        pictures, result_of_row, errors = decode_all(cells, self._processor.view, lambda pixels: pixels)

        def collate(inputs: Indices, _: int) -> Feeds:
            return {"pixel_values": self._processor.feed([pictures[index] for index in inputs])}

        lengths = np.full(len(pictures), self._tokens, np.int64)
        return one_result_each(lengths, result_of_row, errors, collate)


def decode_all(
    cells: pa.ChunkedArray, view: View, make: Callable[[Pixels], Any]
) -> tuple[list[Any], Indices, dict[int, str]]:
    """What `make` gives of a view of each distinct picture of a column; see `cells.distinct` for the rest.

    `make` may raise UnfitPicture too.
    """
    values, result_of_row, errors = distinct(cells)
    made: list[Any] = []
    reasons: dict[int, str] = {}
    for index, pixels in enumerate(DECODERS.render_all((value.as_buffer() for value in values), view)):
        try:
            if isinstance(pixels, UnfitPicture):
                raise pixels
            made.append(make(pixels))
        except UnfitPicture as error:
            made.append(None)
            reasons[index] = str(error)
    return keep_valid(made, reasons, result_of_row, errors)


def count_pixels(cells: pa.ChunkedArray) -> Indices:
    """How many pixels each picture of a column (R,) has by its header; 0 where it is none."""
    values, value_of_row, _ = distinct(cells)
    sizes = DECODERS.measure_all(value.as_buffer() for value in values)
    pixels = np.array([*(width * height for width, height in sizes), 0], np.int64)
    return pixels[value_of_row]  # NO_RESULT takes the last
