"""What it costs and gains to decode large JPEGs at a part of their size: see `tfbatch/pictures/scaled.py`.

`python examples/scaled.py` prints how far pixels are from those that the Hub's processor makes of the
full size, in grey levels, by how much larger than the target a picture has to stay, and what `tfbatch
run` makes of the pictures with and without `--exact-decoding`. They are the photographs of `data.py`
as they are, and parts of them enlarged to 12 megapixels.
"""

import io
import json
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tfbatch.pictures.scaled
from data import BUILD, IMAGE, ROOT
from PIL import Image
from rich.console import Console
from rich.table import Table
from tfbatch.pictures.views import View, render

FOLDER = BUILD / "scaled"
LARGE = (4000, 3000)
PARTS = 10  # of each photograph
TARGETS = (28, 96, 224)
GAPS = (2, 3, 4)
RESAMPLES = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
console = Console(width=110, highlight=False)


def photographs() -> list[Image.Image]:
    cells = pq.read_table(BUILD / "data" / "photographs.parquet")["image"].to_pylist()
    return [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in cells]


def part(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Half to all of a picture, enlarged."""
    width, height = (round(side * random.uniform(0.5, 1)) for side in picture.size)
    left, top = int(random.integers(picture.width - width + 1)), int(random.integers(picture.height - height + 1))
    return picture.resize(LARGE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def distances(pictures: list[bytes]) -> Table:
    """Grey levels from the exact pixels, by GAP, resampling and target."""
    table = Table(title=f"grey levels off, {len(pictures)} pictures: mean, most", title_justify="left")
    for heading in ("resample", "target", *(f"at least {gap} times" for gap in GAPS)):
        table.add_column(heading, justify="right")
    for resample in RESAMPLES:
        for side in TARGETS:
            exact = [look(data, side, resample, is_exact=True) for data in pictures]
            cells = []
            for gap in GAPS:
                with patch.object(tfbatch.pictures.scaled, "GAP", gap):
                    scaled = [look(data, side, resample) for data in pictures]
                off = [np.abs(found - wanted) for found, wanted in zip(scaled, exact, strict=True)]
                cells.append(f"{np.mean([each.mean() for each in off]):.2f}, {max(each.max() for each in off)}")
            table.add_row(resample.name.lower(), str(side), *cells)
    return table


def look(data: bytes, side: int, resample: Image.Resampling, *, is_exact: bool = False) -> np.ndarray:
    return np.asarray(render(data, View(size=(side, side), resample=resample, is_exact=is_exact)), int)


def run(*options: str) -> tuple[pa.Table, float]:
    """The rows of a run of the default model, and how many it did in a second."""
    command = ["-m", "tfbatch", "run", "in.parquet", "-o", "out", "-m", ROOT / "models" / "fashion", "--overwrite"]
    words = [sys.executable, *map(str, command), *options]
    done = subprocess.run(words, cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=True)
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((FOLDER / "out").glob("part-*"))])
    return rows, json.loads(done.stdout.splitlines()[-1])["rows_per_second"]


def outcome(pictures: list[bytes]) -> Table:
    """What a run makes of the pictures, scaled and exact."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    cells = pa.array([{"bytes": data, "path": None} for data in pictures], IMAGE)
    pq.write_table(pa.table({"image": cells}), FOLDER / "in.parquet")
    (exact, exact_rate), (scaled, rate) = run("--exact-decoding"), run()
    labels, wanted = (each["predicted_label"].to_numpy() for each in (scaled, exact))
    scores, wanted_scores = (each["predicted_score"].to_numpy() for each in (scaled, exact))
    table = Table(title=f"models/fashion, {len(pictures)} pictures", title_justify="left")
    for heading in ("exact, pictures/s", "scaled, pictures/s", "other labels", "score off at most"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{exact_rate:.1f}",
        f"{rate:.1f}",
        f"{np.mean(labels != wanted):.1%}",
        f"{np.abs(scores - wanted_scores).max():.4f}",
    )
    return table


def main() -> None:
    """Print the tables."""
    random = np.random.default_rng(0)
    small = [jpeg(picture) for picture in photographs()]
    large = [jpeg(part(picture, random)) for picture in photographs() for _ in range(PARTS)]
    console.print(distances(small))
    console.print(distances(large[::PARTS]))
    console.print(outcome(large))


if __name__ == "__main__":
    main()
