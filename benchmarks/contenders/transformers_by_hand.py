"""Models that make pictures, with transformers by hand: no pipeline takes a mask or batches these."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

VENV = "torch"
KINDS = ("inpaint", "upscale")
PRECISION = "fp32"
BATCH = 32


def load(model: Model, threads: int) -> Score:
    import torch
    from transformers import AutoModelForImageToImage, AutoModelForMaskedImageModeling

    torch.set_num_threads(1)
    kind = AutoModelForMaskedImageModeling if model.kind == "inpaint" else AutoModelForImageToImage
    network = kind.from_pretrained(model.checkpoint, dtype=torch.float32).eval()
    make = Inpainting(model, network) if model.kind == "inpaint" else Upscaling(model, network)
    size = BATCH if model.kind == "inpaint" else 1  # pictures to enlarge have sizes of their own

    pool = ThreadPoolExecutor(threads)

    def make_encoded(rows: list[dict[str, Any]]) -> list[dict[str, bytes | None]]:
        return [encode(picture) for picture in make(rows)]

    def score(rows: pa.Table) -> Columns:
        cells = rows.to_pylist()
        made = pool.map(make_encoded, [cells[at : at + size] for at in range(0, len(cells), size)])
        return {"generated_image": [picture for batch in made for picture in batch]}

    return score


class Inpainting:
    """What a mask paints over is made anew, patch by patch, and pasted into the picture."""

    def __init__(self, model: Model, network: Any) -> None:
        from transformers import AutoImageProcessor

        self.processor = AutoImageProcessor.from_pretrained(model.checkpoint)
        self.network = network
        self.side = network.config.patch_size

    def __call__(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        import torch

        pictures = [decode(row["image"], "RGB") for row in rows]
        painted = np.stack([decode(row["mask"], "L") for row in rows]) > 0
        grid = painted.shape[1] // self.side
        hidden = painted.reshape(-1, grid, self.side, grid, self.side).any(axis=(2, 4)).reshape(len(rows), -1)
        pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            output = self.network(pixels, bool_masked_pos=torch.from_numpy(hidden)).reconstruction.numpy()
        known = self.processor
        deviation, mean = (np.reshape(each, (3, 1, 1)) for each in (known.image_std, known.image_mean))
        made = levels(output * deviation + mean)
        return [np.where(mask[:, :, None], new, old) for mask, new, old in zip(painted, made, pictures, strict=True)]


class Upscaling:
    """Each picture at once, padded by the processor and cut to its size again."""

    def __init__(self, model: Model, network: Any) -> None:
        from transformers import AutoImageProcessor

        self.processor = AutoImageProcessor.from_pretrained(model.checkpoint)
        self.network = network
        self.scale = network.config.upscale

    def __call__(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        import torch

        (picture,) = (decode(row["image"], "RGB") for row in rows)
        height, width = (self.scale * side for side in picture.shape[:2])
        with torch.inference_mode():
            output = self.network(**self.processor(picture, return_tensors="pt")).reconstruction.numpy()
        return list(levels(output)[:, :height, :width])


def decode(cell: dict[str, Any], mode: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert(mode))


def levels(output: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 (B, 3, H, W) as bytes (B, H, W, 3)."""
    return (output.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def encode(pixels: np.ndarray) -> dict[str, bytes | None]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)  # as tfbatch does; by default it takes thrice as long
    return {"bytes": buffer.getvalue(), "path": None}
