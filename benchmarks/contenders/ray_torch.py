"""Ray Data with a transformers pipeline in each actor, as its documentation has it."""

from pathlib import Path
from typing import Any

from benchmarks.contenders._ray import BATCH, Loaded, run_actors
from benchmarks.workloads import Model, Workload

VENV = "ray"
KINDS = ("text",)
PRECISION = "fp32"


class Classifier:
    """Loaded once an actor; called with a batch of columns."""

    def __init__(self, model: Model, loaded: Loaded) -> None:
        import torch
        from transformers import pipeline

        torch.set_num_threads(1)
        self.pipe = pipeline(
            "text-classification", str(model.checkpoint), device="cpu", batch_size=BATCH, dtype=torch.float32
        )
        loaded.mark()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = self.pipe(list(batch["text"]), truncation=True)
        batch["predicted_label"] = [each["label"] for each in found]
        batch["predicted_score"] = [each["score"] for each in found]
        return batch


def run(model: Model, workload: Workload, input: Path, output: Path, threads: int) -> float:  # noqa: A002, ARG001
    return run_actors(Classifier, model, input, output, threads)
