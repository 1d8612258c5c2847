"""sentence-transformers: `encode`, which sorts by length itself, in its default batches of 32."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

BATCH = 32


def save(model: Model, backend: str) -> Any:
    """Convert a checkpoint to a backend and save it in `model.prepared`, its pooling and length as it has them."""
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(model.checkpoint), device="cpu")
    network.save(str(model.prepared))
    if backend != "torch":
        network = SentenceTransformer(str(model.prepared), backend=backend, device="cpu")
        network.save_pretrained(str(model.prepared))
    return network


def load_backend(folder: Path, threads: int, backend: str, **options: Any) -> Score:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    network = SentenceTransformer(str(folder), backend=backend, device="cpu", model_kwargs=options)

    def score(rows: pa.Table) -> Columns:
        found = network.encode(rows["text"].to_pylist(), batch_size=BATCH, show_progress_bar=False)
        return {"embedding": list(found)}

    return score


def session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options
