"""What contenders written by hand do with pictures: decode, resize, normalise; a thread a batch."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.contenders import Columns, Score
from benchmarks.contenders._columns import labelled, labels_of
from benchmarks.workloads import Model

TOKENS = 2_048  # of a batch, a patch each


def load_processor(model: Model) -> Callable[[bytes], np.ndarray]:
    """The checkpoint's own preprocessing, (3, height, width); large JPEGs are decoded at a smaller size."""
    config = json.loads((model.checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))
    size = (config["size"]["width"], config["size"]["height"])
    mean, deviation = (np.array(config[name], np.float32) * 255 for name in ("image_mean", "image_std"))

    def process(data: bytes) -> np.ndarray:
        picture = Image.open(io.BytesIO(data))
        picture.draft("RGB", (2 * size[0], 2 * size[1]))
        small = picture.convert("RGB").resize(size, config["resample"])
        return ((np.asarray(small, np.float32) - mean) / deviation).transpose(2, 0, 1)

    return process


def batch_of(model: Model) -> int:
    """Pictures of a batch."""
    config = json.loads((model.checkpoint / "config.json").read_text(encoding="utf-8"))
    return max(1, TOKENS // (config["image_size"] // config["patch_size"]) ** 2)


def classifier(model: Model, threads: int, compute: Callable[[np.ndarray], np.ndarray]) -> Score:
    """`compute` takes (pictures, 3, height, width) to logits (pictures, labels)."""
    process, batch, labels = load_processor(model), batch_of(model), labels_of(model)
    pool = ThreadPoolExecutor(threads)

    def classify(cells: list[dict[str, Any]]) -> np.ndarray:
        return compute(np.stack([process(cell["bytes"]) for cell in cells]))

    def score(rows: pa.Table) -> Columns:
        cells = rows["image"].to_pylist()
        logits = list(pool.map(classify, [cells[at : at + batch] for at in range(0, len(cells), batch)]))
        return labelled(np.concatenate(logits), labels)

    return score
