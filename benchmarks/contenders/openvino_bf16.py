"""OpenVINO in bf16, on its own conversion of the checkpoint."""

from benchmarks.contenders import Score
from benchmarks.contenders._openvino import load_pictures, load_text
from benchmarks.workloads import Model

VENV = "openvino"
PREPARED = "_openvino_model"
KINDS = ("text", "image")
PRECISION = "bf16"


def load(model: Model, threads: int) -> Score:
    load_kind = load_text if model.kind == "text" else load_pictures
    return load_kind(model.prepared / "model.xml", model, threads, "bf16")
