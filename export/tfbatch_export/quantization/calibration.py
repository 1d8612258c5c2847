"""What the products of a graph read over real rows."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from tfbatch.runtimes.device import find_device
from tfbatch.runtimes.onnxruntime_session import open_graph

from tfbatch_export.families import Tensors

Numbers = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HELD_OUT = 3  # of so many batches one is held out
MOST_HELD_OUT = 128  # tokens of it


@dataclass(frozen=True)
class Seen:
    """What a product reads of tokens: the K channels' lowest and highest numbers and means (K,), their covariance
    (K, K), and tokens of other rows (n, K)."""

    low: Numbers
    high: Numbers
    mean: Numbers
    covariance: Doubles
    held_out: Numbers


class Tally:
    """Makes `Seen` of tokens. They are summed as they differ from the first ones' mean: of channels that are far from
    zero and vary little nothing would be left else."""

    def __init__(self) -> None:
        self._tokens = 0
        self._low: Numbers | float = np.inf
        self._high: Numbers | float = -np.inf
        self._middle: Numbers | float = 0
        self._sum: Doubles | float = 0
        self._squares: Numbers | float = 0
        self._held_out: list[Numbers] = []

    @property
    def is_enough(self) -> bool:
        """Whether there are tokens of both kinds."""
        return self._tokens > 0 and any(map(len, self._held_out))

    def add(self, states: Numbers) -> None:
        """Count in some tokens (n, K)."""
        if not len(states):
            return
        if not self._tokens:
            self._middle = states.mean(0)
        centred = np.asarray(states - self._middle, np.float32)
        self._tokens += len(states)
        self._low = np.minimum(self._low, states.min(0))
        self._high = np.maximum(self._high, states.max(0))
        self._sum += centred.sum(0, dtype=np.float64)
        self._squares += centred.T @ centred

    def hold_out(self, states: Numbers) -> None:
        """Keep some of tokens (n, K)."""
        self._held_out.append(np.random.default_rng(0).permutation(states)[:MOST_HELD_OUT])

    def seen(self) -> Seen:
        """Of all tokens, which must be enough."""
        mean = np.asarray(self._sum / self._tokens, np.float64)
        return Seen(
            low=np.asarray(self._low),
            high=np.asarray(self._high),
            mean=np.asarray(self._middle + mean, np.float32),
            covariance=np.asarray(self._squares / self._tokens - np.outer(mean, mean)),
            held_out=np.concatenate(self._held_out),
        )


def calibrate(
    model: ir.Model, values: Sequence[ir.Value], batches: Mapping[str, Tensors]
) -> Iterator[tuple[ir.Value, Seen]]:
    """What some values (..., K) of a graph are over batches, of which every third is held out; those that are of too
    few tokens are left out, and what a mask calls padding."""
    if not (values and batches):
        return
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
        for index, batch in enumerate(batches.values()):
            found = session.run(None, {name: batch[name].numpy() for name in names})
            for value, states in zip(values, found, strict=True):
                count_in = tallies[value].hold_out if index % HELD_OUT == HELD_OUT - 1 else tallies[value].add
                count_in(real_tokens(states, batch))
            del found, states  # as large as the next batch's
    for value in values:
        tally = tallies.pop(value)
        if tally.is_enough:
            yield value, tally.seen()


def real_tokens(states: Numbers, batch: Tensors) -> Numbers:
    """States (..., K) as tokens (n, K), without those that are padding."""
    mask = batch.get("attention_mask")
    if mask is not None and states.shape[:-1] == tuple(mask.shape):
        states = states[mask.numpy().astype(bool)]
    return states.reshape(-1, states.shape[-1])
