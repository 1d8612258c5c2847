"""sentence-transformers on PyTorch, its default."""

from benchmarks.contenders import Score
from benchmarks.contenders._sentence_transformers import load_backend, save
from benchmarks.workloads import Model

VENV = "sentence-transformers"
KINDS = ("embedding",)
PRECISION = "fp32"


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    save(model, "torch")


def load(model: Model, threads: int) -> Score:
    return load_backend(model.prepared, threads, "torch")
