"""onnxruntime on tfbatch's own fused graph, batches of 32 in the file's order, padded to the longest:
what the pipeline around the graph is worth.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.contenders._columns import labelled, labels_of
from benchmarks.contenders._onnxruntime import open_session
from benchmarks.workloads import Model

VENV = "onnxruntime"
KINDS = ("text", "image")
PRECISION = "fp32"
BATCH = 32


def load(model: Model, threads: int) -> Score:
    session = open_session(model.bundle / "model.onnx", threads)
    return score_texts(model, session) if model.kind == "text" else score_pictures(model, session)


def score_texts(model: Model, session: Any) -> Score:
    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored

    tokenizer = load_tokenizer(model)

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        batches = np.split(np.arange(len(ids)), range(BATCH, len(ids), BATCH))
        outputs = (session.run(None, pad([ids[row] for row in batch]))[0] for batch in batches)
        return scored(model, ids, zip(batches, outputs, strict=True))

    return score


def score_pictures(model: Model, session: Any) -> Score:
    from benchmarks.contenders._pictures import load_processor

    process, labels = load_processor(model), labels_of(model)

    def score(rows: pa.Table) -> Columns:
        cells = rows["image"].to_pylist()
        logits = []
        for at in range(0, len(cells), BATCH):
            pictures = np.stack([process(cell["bytes"]) for cell in cells[at : at + BATCH]])
            logits.append(session.run(["logits"], {"pixel_values": pictures})[0])
        return labelled(np.concatenate(logits), labels)

    return score
