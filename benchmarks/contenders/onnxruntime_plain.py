"""onnxruntime on tfbatch's own fused graph, batches of 32 in the file's order, padded to the longest:
what the pipeline around the graph is worth.
"""

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.contenders._onnxruntime import open_session
from benchmarks.workloads import Model

VENV = "onnxruntime"
KINDS = ("text",)
PRECISION = "fp32"
BATCH = 32


def load(model: Model, threads: int) -> Score:
    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored

    session = open_session(model.bundle / "model.onnx", threads)
    tokenizer = load_tokenizer(model)

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        batches = np.split(np.arange(len(ids)), range(BATCH, len(ids), BATCH))
        outputs = (session.run(None, pad([ids[row] for row in batch]))[0] for batch in batches)
        return scored(model, ids, zip(batches, outputs, strict=True))

    return score
