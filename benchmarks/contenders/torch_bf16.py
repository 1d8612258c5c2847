"""PyTorch in bfloat16, else as `torch-by-hand`."""

from benchmarks.contenders import Score
from benchmarks.contenders._torch import load_torch
from benchmarks.workloads import Model

VENV = "torch"
KINDS = ("text", "embedding", "image")
PRECISION = "bf16"


def load(model: Model, threads: int) -> Score:
    return load_torch(model, threads, "bfloat16")
