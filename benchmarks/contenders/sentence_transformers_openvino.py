"""sentence-transformers on OpenVINO, held to fp32."""

from benchmarks.contenders import Score
from benchmarks.contenders._sentence_transformers import load_backend, save
from benchmarks.workloads import Model

VENV = "sentence-transformers"
KINDS = ("embedding",)
PRECISION = "fp32"


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    save(model, "openvino")


def load(model: Model, threads: int) -> Score:
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    return load_backend(model.prepared, threads, "openvino", ov_config=config)
