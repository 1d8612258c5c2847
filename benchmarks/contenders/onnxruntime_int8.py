"""onnxruntime with weights and activations in int8, dynamic, made by its own `quantize_dynamic` from
tfbatch's fused graph; batches sorted by length, since its results are by batch anyway.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.contenders._onnxruntime import open_session
from benchmarks.workloads import Model

VENV = "onnxruntime"
KINDS = ("text",)
PRECISION = "int8"
BUDGET = 1_024


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model.bundle / "model.onnx",
        model.prepared / "model.onnx",
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def load(model: Model, threads: int) -> Score:
    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored, sorted_batches

    session = open_session(model.prepared / "model.onnx", 1)
    tokenizer = load_tokenizer(model)

    def compute(ids: list[list[int]]) -> np.ndarray:
        return session.run(None, pad(ids))[0]

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        batches = list(sorted_batches(ids, BUDGET))
        with ThreadPoolExecutor(threads) as pool:
            outputs = pool.map(lambda batch: compute([ids[row] for row in batch]), batches)
            return scored(model, ids, zip(batches, outputs, strict=True))

    return score
