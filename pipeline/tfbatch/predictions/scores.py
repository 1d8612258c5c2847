"""Logits to the columns of a classification."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import pyarrow as pa

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.results import Floats, stacked

SCORE_OPTIONS = ("all_scores", "top_k", "threshold")
Activation = Literal["softmax", "sigmoid", "none"]
SCORED_LABEL = pa.struct([("label", pa.string()), ("score", pa.float32())])


def score_columns(config: RunConfig) -> pa.Schema:
    """`predicted_label` and `predicted_score`; with --top-k or --all-scores also `predicted_scores`,
    the best labels with their scores, best first; with --threshold `predicted_labels`, those that
    score so much or more, best first: there may be none."""
    fields = [pa.field("predicted_label", pa.string()), pa.field("predicted_score", pa.float32())]
    if config.all_scores or config.top_k:
        fields.append(pa.field("predicted_scores", pa.list_(SCORED_LABEL)))
    if config.threshold is not None:
        fields.append(pa.field("predicted_labels", pa.list_(pa.string())))
    return pa.schema(fields)


def activation_of(bundle: Bundle) -> Activation:
    """What `transformers.pipeline` does to logits: a softmax over the labels, a sigmoid for each label
    where they do not exclude each other (or there is one), nothing for a regression."""
    kind = bundle.read_json("config.json").get("problem_type")
    if kind == "regression":
        return "none"
    is_alone = len(bundle.manifest.labels) == 1
    return "sigmoid" if kind == "multi_label_classification" or is_alone else "softmax"


class Scores:
    """Fills `score_columns`: logits over `labels` become scores by a softmax, by a sigmoid for each, or
    stay what they are."""

    def __init__(self, labels: list[str], activation: Activation, config: RunConfig) -> None:
        self.labels = labels
        self._activation = activation
        self._top = len(self.labels) if config.all_scores else min(config.top_k or 0, len(self.labels))
        self._threshold = config.threshold
        if activation != "none" and self._threshold is not None and self._threshold > 1:
            raise UsageError(f"--threshold {self._threshold:g} is reached by no label: this model's scores are 0 to 1")

    @classmethod
    def of(cls, bundle: Bundle, config: RunConfig) -> Self:
        """The scores of a bundle's own labels."""
        return cls(bundle.named_labels(), activation_of(bundle), config)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        """The columns of logits (labels,), one for each result; zeros where there is no result."""
        scores = self._activate(stacked(results, len(self.labels)))
        order = np.argsort(-scores, axis=1, kind="stable")
        best = order[:, 0] if len(order) else np.zeros(0, np.int64)
        labels = pa.array(self.labels, pa.string())
        columns = [labels.take(pa.array(best)), pa.array(scores[np.arange(len(scores)), best], pa.float32())]
        if self._top:
            top = order[:, : self._top]
            scored = pa.StructArray.from_arrays(
                [labels.take(pa.array(top.ravel())), pa.array(np.take_along_axis(scores, top, 1).ravel())],
                fields=list(SCORED_LABEL),
            )
            offsets = pa.array(np.arange(len(top) + 1, dtype=np.int32) * self._top)
            columns.append(pa.ListArray.from_arrays(offsets, scored))
        if self._threshold is not None:
            over = np.take_along_axis(scores, order, 1) >= self._threshold
            ends = pa.array(np.concatenate([[0], over.sum(1).cumsum()]).astype(np.int32))
            columns.append(pa.ListArray.from_arrays(ends, labels.take(pa.array(order[over]))))
        return columns

    def _activate(self, logits: Floats) -> Floats:
        if self._activation == "none":
            return logits
        if self._activation == "sigmoid":
            return sigmoid(logits)
        return softmax(logits, axis=1)


def softmax(logits: Floats, axis: int) -> Floats:
    """exp(x) over the sum of those along an axis, of numbers of any size."""
    raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
    found: Floats = raised / raised.sum(axis=axis, keepdims=True)
    return found


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) of numbers of any size."""
    found: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return found
