"""Ray Data with an onnxruntime session in each actor, on tfbatch's own fused graph."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders._columns import labelled, labels_of
from benchmarks.contenders._onnxruntime import open_session
from benchmarks.contenders._ray import BATCH, Loaded, run_actors
from benchmarks.workloads import Model, Workload

VENV = "ray"
KINDS = ("text",)
PRECISION = "fp32"


class Classifier:
    """Loaded once an actor; called with a batch of columns."""

    def __init__(self, model: Model, loaded: Loaded) -> None:
        from benchmarks.contenders._text import load_tokenizer

        self.session = open_session(model.bundle / "model.onnx", 1)
        self.tokenizer = load_tokenizer(model)
        self.labels = labels_of(model)
        loaded.mark()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.contenders._text import pad

        ids = [found.ids for found in self.tokenizer.encode_batch_fast(list(batch["text"]))]
        logits = [self.session.run(None, pad(ids[at : at + BATCH]))[0] for at in range(0, len(ids), BATCH)]
        return {**batch, **labelled(np.concatenate(logits), self.labels)}


def run(model: Model, workload: Workload, input: Path, output: Path, threads: int) -> float:  # noqa: A002, ARG001
    return run_actors(Classifier, model, input, output, threads)
