"""sentence-transformers on OpenVINO in bf16, OpenVINO's default on processors that have it."""

from benchmarks.contenders import Score
from benchmarks.contenders._sentence_transformers import load_backend
from benchmarks.workloads import Model

VENV = "sentence-transformers"
KINDS = ("embedding",)
PRECISION = "bf16"
PREPARED = "sentence-transformers-openvino"


def load(model: Model, threads: int) -> Score:
    config = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    return load_backend(model.prepared, threads, "openvino", ov_config=config)
