"""Logits to the columns that every classification writes."""

import json

import numpy as np

from benchmarks.contenders import Columns
from benchmarks.workloads import Model


def labels_of(model: Model) -> list[str]:
    """The checkpoint's labels by index."""
    config = json.loads((model.checkpoint / "config.json").read_text(encoding="utf-8"))
    return [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]


def labelled(logits: np.ndarray, labels: list[str]) -> Columns:
    """The most likely label of each row, and its softmax."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    best = scores.argmax(axis=1)
    return {
        "predicted_label": [labels[index] for index in best],
        "predicted_score": scores[np.arange(len(best)), best].astype(np.float32),
    }
