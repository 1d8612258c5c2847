"""How good the default models that make pictures are, through `tfbatch run`, on pictures they were not trained on.

`python examples/quality.py` prints two tables. PSNR is the peak signal-to-noise ratio in dB: 10 times
the logarithm of 255² over the mean squared error.
"""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from data import BUILD, FASHION_SAMPLE, IMAGE, ROOT, encode
from photographs import held_out, luma_psnr, pair
from PIL import Image
from rich.console import Console
from rich.table import Table
from tfbatch.bundle import load_bundle
from tfbatch.pictures.masks import enlarge, random_patches

FOLDER = BUILD / "quality"
LEAST_GAIN = {"inpaint": 6.0, "upscale": 1.0}  # dB
LEAST_INPAINT = 16.5  # dB
console = Console(width=110, highlight=False)


def run(source: pa.Table, *options: str) -> pa.Table:
    """All rows of an output, from a run of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pq.write_table(source, FOLDER / "in.parquet")
    command = ["tfbatch", "run", "in.parquet", "-o", "out", "--models", ROOT / "models", "--overwrite", *options]
    executable = Path(sys.executable).with_name("tfbatch")
    subprocess.run([executable, *map(str, command[1:])], cwd=FOLDER, stdout=subprocess.PIPE, check=True)
    return pa.concat_tables([pq.read_table(part) for part in sorted((FOLDER / "out").glob("part-*.parquet"))])


def pixels(cell: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) bytes."""
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))


def inpaint() -> bool:
    """Hidden pixels of the test pictures: the model against the mean of these very pictures."""
    source = pq.read_table(FASHION_SAMPLE, columns=["image"])
    output = run(source, "--task", "masked-im")
    pictures = np.array([pixels(cell)[..., 0] for cell in source["image"].to_pylist()], float)
    made = np.array([pixels(cell)[..., 0] for cell in output["generated_image"].to_pylist()], float)
    settings = load_bundle(ROOT / "models" / "inpaint").manifest.settings
    unit = settings["mask_unit"]
    across = pictures.shape[2] // unit
    hidden = np.array(
        [
            enlarge(random_patches(0, cell["bytes"], row, across**2, settings["masked_units"]), across, unit)
            for row, cell in enumerate(source["image"].to_pylist())
        ]
    )
    mean = np.broadcast_to(pictures.mean(axis=0), pictures.shape)
    found, baseline = (psnr(result[hidden], pictures[hidden]) for result in (made, mean))
    table = Table(title=f"models/inpaint: {len(pictures):,} test pictures, hidden pixels", title_justify="left")
    for heading in ("hidden", "mean image, dB", "model, dB", "gain, dB"):
        table.add_column(heading, justify="right")
    table.add_row(f"{hidden.mean():.0%}", f"{baseline:.2f}", f"{found:.2f}", f"{found - baseline:+.2f}")
    console.print(table)
    return found >= LEAST_INPAINT and found - baseline >= LEAST_GAIN["inpaint"]


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(found - wanted).mean()))


def upscale() -> bool:
    """Photographs at half size made whole again: the model against bicubic interpolation."""
    pairs = {name: pair(picture) for name, picture in held_out().items()}
    source = pa.table({"image": pa.array([encode(small) for small, _ in pairs.values()], IMAGE)})
    output = run(source, "--task", "image-to-image")
    table = Table(title="models/upscale: photographs never trained on, Y channel", title_justify="left")
    for heading in ("photograph", "bicubic, dB", "model, dB", "gain, dB"):
        table.add_column(heading, justify="left" if heading == "photograph" else "right")
    gains = []
    for (name, (small, whole)), cell in zip(pairs.items(), output["generated_image"].to_pylist(), strict=True):
        cubic, made = (
            luma_psnr(small.resize(whole.size, Image.Resampling.BICUBIC), whole),
            luma_psnr(pixels(cell), whole),
        )
        gains.append(made - cubic)
        table.add_row(name, f"{cubic:.2f}", f"{made:.2f}", f"{gains[-1]:+.2f}")
    table.add_row("mean", "", "", f"{np.mean(gains):+.2f}")
    console.print(table)
    return min(gains) > 0 and float(np.mean(gains)) >= LEAST_GAIN["upscale"]


def main() -> None:
    """Print both tables; fail if a model is not as good as it should be."""
    if not all([inpaint(), upscale()]):
        sys.exit("a default model is not as good as it should be")


if __name__ == "__main__":
    main()
