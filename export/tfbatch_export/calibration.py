"""What the products of a graph read over real rows."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from tfbatch.device import find_device
from tfbatch.onnxruntime_session import open_graph

from tfbatch_export.families import Tensors

Numbers = npt.NDArray[np.float32]

JUDGED = 8  # of so many tokens one is held out
MOST_JUDGED = 128  # of a batch


@dataclass(frozen=True)
class Seen:
    """What a product reads of all tokens together: the K channels' lowest and highest numbers and means (K,), their
    covariance (K, K), and some tokens (n, K) that none of these were taken from."""

    low: Numbers
    high: Numbers
    mean: Numbers
    covariance: Numbers
    held_out: Numbers


class Tally:
    """Makes `Seen` of one batch after another."""

    def __init__(self) -> None:
        self._tokens = 0
        self._low: Numbers | float = np.inf
        self._high: Numbers | float = -np.inf
        self._sum: Numbers | float = 0
        self._squares: Numbers | float = 0
        self._held_out: list[Numbers] = []

    def add(self, states: Numbers) -> None:
        """Count in some tokens (n, K)."""
        is_held_out = np.arange(len(states)) % JUDGED == JUDGED - 1
        self._held_out.append(states[is_held_out][:MOST_JUDGED])
        counted = states[~is_held_out]
        if not len(counted):
            return
        self._tokens += len(counted)
        self._low = np.minimum(self._low, counted.min(0))
        self._high = np.maximum(self._high, counted.max(0))
        self._sum += counted.sum(0)
        self._squares += counted.T @ counted

    @property
    def is_enough(self) -> bool:
        """Whether any token is held out, before which others were counted."""
        return any(map(len, self._held_out))

    def seen(self) -> Seen:
        """Of all that was added, which must be enough."""
        mean = np.asarray(self._sum / self._tokens, np.float32)
        return Seen(
            low=np.asarray(self._low),
            high=np.asarray(self._high),
            mean=mean,
            covariance=np.asarray(self._squares / self._tokens - np.outer(mean, mean), np.float32),
            held_out=np.concatenate(self._held_out),
        )


def calibrate(model: ir.Model, values: Sequence[ir.Value], batches: Mapping[str, Tensors]) -> dict[ir.Value, Seen]:
    """What some values (..., K) of a graph are over batches; padding is left out. Those that are of too few
    tokens are not told of."""
    if not (values and batches):
        return {}
    tallies = {value: Tally() for value in values}
    outputs = list(model.graph.outputs)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "watched.onnx"
        model.graph.outputs[:] = values
        try:
            ir.save(model, path)
        finally:
            model.graph.outputs[:] = outputs
        session = open_graph(path, find_device("cpu"))
        names = [given.name for given in session.get_inputs()]
        for batch in batches.values():
            found = session.run(None, {name: batch[name].numpy() for name in names})
            for value, states in zip(values, found, strict=True):
                tallies[value].add(real_tokens(states, batch))
    return {value: tally.seen() for value, tally in tallies.items() if tally.is_enough}


def real_tokens(states: Numbers, batch: Tensors) -> Numbers:
    """States (..., K) as tokens (n, K), without those that are padding."""
    mask = batch.get("attention_mask")
    if mask is not None and states.shape[:-1] == tuple(mask.shape):
        states = states[mask.numpy().astype(bool)]
    return states.reshape(-1, states.shape[-1])
