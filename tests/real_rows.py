"""Rows as tables hold them, what the default models were made of, and how labels are compared."""

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from PIL import Image

REVIEWS = ROOT / "build" / "data" / "reviews.parquet"
SENTIMENT = ROOT / "build" / "checkpoints" / "sentiment"
MODELS = ROOT / "models"
MADE = "made by `make export export-minilm data`, which `make test` does first"


def real_texts() -> list[str | None]:
    """3,000 rows: sentences, documents of up to 5,000 tokens made of them, and what else tables hold."""
    sentences = pq.read_table(REVIEWS)["text"].to_pylist()
    random = np.random.default_rng(0)
    documents = [" ".join(random.choice(sentences, size)) for size in np.geomspace(10, 230, 60).astype(int)]
    odd = ["", " ", "\n\t", "🎬", "👍🏽👍🏽 great", "naïve café", "电影很好", "a" * 300, "\x00", "!?" * 50, None, None]
    texts = [*documents, *odd, *sentences[: 3000 - len(documents) - len(odd)]]
    return [texts[index] for index in random.permutation(3000)]


def real_pictures() -> list[bytes]:
    """500 pictures: the sample, scaled to many sizes, in the modes and formats that tables hold."""
    sample = pq.read_table(ROOT / "examples" / "fashion" / "sample.parquet")["image"].to_pylist()
    random = np.random.default_rng(0)
    forms = [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"),
             ("1", "PNG"), ("LA", "PNG"), ("RGB", "BMP"), ("RGB", "WEBP"), ("P", "GIF"), ("CMYK", "TIFF")]  # fmt: skip
    pictures = []
    for index in range(500):
        mode, form = forms[index % len(forms)]
        picture = Image.open(io.BytesIO(sample[index % len(sample)]["bytes"])).convert("RGB")
        width, height = random.integers(1, 400, 2).tolist()
        exif = Image.Exif()
        exif[0x0112] = index % 8 + 1  # orientation
        buffer = io.BytesIO()
        options: dict[str, Any] = {"exif": exif} if form in ("JPEG", "WEBP") else {}
        picture.resize((width, height)).convert(mode).save(buffer, form, **options)
        pictures.append(buffer.getvalue())
    return pictures


def compare(found: list[dict[str, Any]], expected: list[dict[str, Any] | None], tolerance: float) -> None:
    """The same label for every row, scores within a tolerance, an error just where nothing is expected."""
    assert len(found) == len(expected)
    for row, reference in zip(found, expected, strict=True):
        assert (row["error"] is not None) == (reference is None)
        if reference is not None:
            assert row["predicted_label"] == reference["label"]
            assert row["predicted_score"] == pytest.approx(reference["score"], abs=tolerance)
