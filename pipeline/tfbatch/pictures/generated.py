"""Pictures a model made: encoded, and declared so that readers show them."""

import io
import json

import pyarrow as pa
from PIL import Image

from tfbatch.config import RunConfig
from tfbatch.pictures.images import Pixels, UnfitPicture
from tfbatch.plan import DATASETS, declared_features

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the form of Hugging Face `datasets`
LONGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65_535, "webp": 16_383}  # what each format can hold, in pixels
PNG_EFFORT = 1  # of 9; more takes three times as long for a tenth fewer bytes
QUALITY = 90  # of 100


class ImageEncoder:
    """Turns pixels into files of one format, by `--image-format` and `--image-quality`."""

    def __init__(self, config: RunConfig) -> None:
        self._format = config.image_format
        self._quality = config.image_quality or QUALITY

    def check_size(self, width: int, height: int) -> None:
        """Refuse a size that the format cannot hold, before anything is computed.

        Raises:
            UnfitPicture: it is too large.
        """
        if max(width, height) > LONGEST_SIDE[self._format]:
            raise UnfitPicture(
                f"too_large: {width} x {height} is more than {self._format} holds, "
                f"{LONGEST_SIDE[self._format]:,} pixels a side"
            )

    def encode(self, pixels: Pixels) -> bytes:
        """(H, W, 3) bytes to a file's content."""
        buffer, picture = io.BytesIO(), Image.fromarray(pixels)
        if self._format == "png":
            picture.save(buffer, "PNG", compress_level=PNG_EFFORT)
        else:
            picture.save(buffer, self._format.upper(), quality=self._quality)
        return buffer.getvalue()

    def column(self, pictures: list[Pixels | None]) -> pa.Array:
        """A column of the type IMAGE, null where there is no picture."""
        encoded = [None if picture is None else {"bytes": self.encode(picture), "path": None} for picture in pictures]
        return pa.array(encoded, IMAGE)


def declare_images(schema: pa.Schema, images: list[str], source: pa.Schema) -> dict[bytes, bytes]:
    """Schema metadata by which `datasets` and the Hub's viewer know image columns.

    What the input declares of columns that are kept stays; `images` are the new ones.
    """
    declared = declared_features(source.metadata or {})
    features = {name: feature for name, feature in declared.items() if name in schema.names}
    features |= {name: {"_type": "Image"} for name in images}
    return {DATASETS: json.dumps({"info": {"features": features}}).encode()} if features else {}
