"""OpenVINO in fp32, on tfbatch's fused graph, whose operators it reads."""

from benchmarks.contenders import Score
from benchmarks.contenders._openvino import load_text
from benchmarks.workloads import Model

VENV = "openvino"
KINDS = ("text",)
PRECISION = "fp32"


def load(model: Model, threads: int) -> Score:
    return load_text(model.bundle / "model.onnx", model, threads, "f32")
