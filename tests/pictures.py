"""Pictures for tests: smooth scenes, their files, tables of them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PictureModel = Callable[[str], tuple[Path, Path]]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def scene(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    """A smooth picture with some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    levels = np.asarray(coarse) + random.integers(-9, 9, (size[1], size[0], 3))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(cell: dict[str, Any] | None) -> Any:
    assert cell is not None
    return np.asarray(Image.open(io.BytesIO(cell["bytes"]))).astype(int)


def write_pictures(path: Path, rows: int, *, bad: bool = True) -> Path:
    """Pictures in the form of `datasets`, every fifth broken or null, in row groups of 7."""
    cells = [{"bytes": png(scene(row, (40 + row % 3, 30))), "path": f"{row}.png"} for row in range(rows)]
    if bad:
        for row in range(4, rows, 5):
            cells[row] = {"bytes": b"junk" if row % 2 else None, "path": "../../etc/passwd"}
    table = pa.table({"id": np.arange(rows), "image": pa.array(cells, IMAGE)})
    pq.write_table(table, path, row_group_size=7)
    return path
