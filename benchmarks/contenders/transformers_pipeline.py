"""`transformers.pipeline`, as its documentation shows batch inference: `batch_size=32`, truncation."""

import io
from typing import Any

import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

VENV = "torch"
KINDS = ("text", "image")
PRECISION = "fp32"
BATCH = 32


def load(model: Model, threads: int) -> Score:
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    task = "text-classification" if model.kind == "text" else "image-classification"
    pipe = pipeline(task, str(model.checkpoint), device="cpu", batch_size=BATCH, dtype=torch.float32)
    return score_texts(pipe) if model.kind == "text" else score_pictures(pipe)


def score_texts(pipe: Any) -> Score:
    def score(rows: pa.Table) -> Columns:
        return columns(pipe(rows["text"].to_pylist(), truncation=True))

    return score


def score_pictures(pipe: Any) -> Score:
    from PIL import Image

    def score(rows: pa.Table) -> Columns:
        pictures = [Image.open(io.BytesIO(cell["bytes"])) for cell in rows["image"].to_pylist()]
        return columns([best for (best,) in pipe(pictures, top_k=1)])

    return score


def columns(found: list[dict[str, Any]]) -> Columns:
    return {
        "predicted_label": [each["label"] for each in found],
        "predicted_score": [each["score"] for each in found],
    }
