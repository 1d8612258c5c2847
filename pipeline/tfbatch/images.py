"""Picture cells to pixels: what the Hub's image processor does, with Pillow and numpy alone."""

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from tfbatch.batches import Feeds, Indices, Work
from tfbatch.bundle import Bundle
from tfbatch.cells import distinct, keep_valid

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 50_000_000
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")

Image.MAX_IMAGE_PIXELS = None  # decode() asks the header itself and makes it that row's error
warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in pictures that decode all the same

Pixels = npt.NDArray[np.uint8]


class UnfitPicture(Exception):
    """A picture that is not decoded, with the code and reason its row gets."""


class ImageInput:
    """Turns an image column into normalised pixels (B, 3, H, W) float32.

    The settings are those of `preprocessor_config.json`: size, resample, rescale_factor,
    image_mean, image_std. Pixels stay bytes until they are collated.
    """

    def __init__(self, bundle: Bundle) -> None:
        settings = bundle.read_json("preprocessor_config.json")
        self._size = (int(settings["size"]["width"]), int(settings["size"]["height"]))
        self._resample = Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR))
        self._tokens = bundle.setting("tokens_per_image")
        self._levels = normalised_levels(settings)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        """Decode and resize each distinct picture; null and undecodable ones are row errors."""
        values, input_of_row, errors = distinct(cells)
        pictures: list[Pixels | None] = []
        reasons: dict[int, str] = {}
        for index, value in enumerate(values):
            try:
                pictures.append(np.asarray(self.resize(decode(value.as_buffer()))))
            except UnfitPicture as error:
                pictures.append(None)
                reasons[index] = str(error)
        pictures, input_of_row, errors = keep_valid(pictures, reasons, input_of_row, errors)
        pixels = np.array(pictures, np.uint8)

        def collate(inputs: Indices, _: int) -> Feeds:
            channels = [self._levels[channel][pixels[inputs, :, :, channel]] for channel in range(3)]
            return {"pixel_values": np.stack(channels, axis=1)}

        lengths = np.full(len(pixels), self._tokens, np.int64)
        return Work(lengths=lengths, collate=collate, input_of_row=input_of_row, errors=errors)

    def resize(self, picture: Image.Image) -> Image.Image:
        """To the model's size, by the processor's resampling."""
        return picture if picture.size == self._size else picture.resize(self._size, self._resample)


def normalised_levels(settings: dict[str, Any]) -> npt.NDArray[np.float32]:
    """What each of a byte's 256 levels becomes in each channel: (3, 256) float32."""
    levels = np.tile(np.arange(256, dtype=np.float32), (3, 1))
    if settings.get("do_rescale", True):
        levels *= np.float32(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        mean, std = (np.array(settings[name], np.float32)[:, None] for name in ("image_mean", "image_std"))
        levels = (levels - mean) / std
    return levels


def decode(data: pa.Buffer) -> Image.Image:
    """The first frame of a picture as upright 8-bit RGB.

    Raises:
        UnfitPicture: not one of FORMATS, more than MAX_PIXELS by its header, broken or truncated.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UnfitPicture(f"too_large: {width} x {height} is over {MAX_PIXELS:,} pixels")
            return to_eight_bits(ImageOps.exif_transpose(picture)).convert("RGB")
    except UnfitPicture:
        raise
    except UnidentifiedImageError:
        raise UnfitPicture(f"undecodable: not a picture in any of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders of hostile bytes raise SyntaxError, struct.error, anything
        raise UnfitPicture(f"undecodable: the picture is broken ({type(error).__name__})") from error


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
