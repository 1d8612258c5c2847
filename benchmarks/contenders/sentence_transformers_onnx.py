"""sentence-transformers on onnxruntime, with the graph optimized (O3) as its documentation advises."""

from benchmarks.contenders import Score
from benchmarks.contenders._sentence_transformers import load_backend, save, session_options
from benchmarks.workloads import Model

VENV = "sentence-transformers"
KINDS = ("embedding",)
PRECISION = "fp32"


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    from sentence_transformers import export_optimized_onnx_model

    export_optimized_onnx_model(save(model, "onnx"), "O3", str(model.prepared))


def load(model: Model, threads: int) -> Score:
    options = {"provider": "CPUExecutionProvider", "session_options": session_options(threads)}
    return load_backend(model.prepared, threads, "onnx", file_name="onnx/model_O3.onnx", **options)
