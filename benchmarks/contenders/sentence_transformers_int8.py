"""sentence-transformers on onnxruntime in dynamic int8, as its documentation advises for processors."""

from benchmarks.contenders import Score
from benchmarks.contenders._sentence_transformers import load_backend, save, session_options
from benchmarks.workloads import Model

VENV = "sentence-transformers"
KINDS = ("embedding",)
PRECISION = "int8"


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    from sentence_transformers import export_dynamic_quantized_onnx_model

    export_dynamic_quantized_onnx_model(save(model, "onnx"), "avx512_vnni", str(model.prepared))


def load(model: Model, threads: int) -> Score:
    options = {"provider": "CPUExecutionProvider", "session_options": session_options(threads)}
    file = "onnx/model_qint8_avx512_vnni.onnx"
    return load_backend(model.prepared, threads, "onnx", file_name=file, **options)
