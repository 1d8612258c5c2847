"""PyTorch in bfloat16, else as `torch-by-hand`."""

from benchmarks.contenders import Score
from benchmarks.contenders._torch import load_text
from benchmarks.workloads import Model

VENV = "torch"
KINDS = ("text",)
PRECISION = "bf16"


def load(model: Model, threads: int) -> Score:
    return load_text(model, threads, "bfloat16")
