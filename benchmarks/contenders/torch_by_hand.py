"""PyTorch in fp32, written as well as we can: see `_torch`."""

from benchmarks.contenders import Score
from benchmarks.contenders._torch import load_torch
from benchmarks.workloads import Model

VENV = "torch"
KINDS = ("text", "embedding", "image")
PRECISION = "fp32"


def load(model: Model, threads: int) -> Score:
    return load_torch(model, threads, "float32")
