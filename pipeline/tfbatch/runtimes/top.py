"""The best of very many classes, in place of them all: a vocabulary's logits are what costs most to send back."""

from dataclasses import dataclass

import numpy as np

from tfbatch.batches import Feeds, Indices
from tfbatch.bundles.tiny_graph import best_logits
from tfbatch.results import Floats


@dataclass(frozen=True)
class Top:
    """The `count` best of logits (B, C): their values, best first, their places, and the logarithm of the sum
    of all exponentials, (B, 2 x count + 1). A `Reduction`."""

    count: int
    takes = ()

    def graph(self) -> bytes:
        """See `Reduction`."""
        return best_logits(self.count)

    def of(self, logits: Floats, _: Feeds) -> Floats:
        """See `Reduction`."""
        places = np.argpartition(-logits, self.count - 1, axis=1)[:, : self.count]
        order = np.argsort(-np.take_along_axis(logits, places, 1), axis=1, kind="stable")
        places = np.take_along_axis(places, order, 1)
        values = np.take_along_axis(logits, places, 1)
        with np.errstate(invalid="ignore"):  # what is no number is that row's error
            total = np.log(np.exp(logits - values[:, :1]).sum(axis=1, keepdims=True)) + values[:, :1]
        return np.concatenate([values, places.astype(np.float32), total], axis=1)  # places are under 2**24

    def read(self, row: Floats) -> tuple[Indices, Floats]:
        """One row's places (count,) and their probabilities by a softmax."""
        values, places, total = np.split(row, [self.count, 2 * self.count])
        return places.astype(np.int64), np.exp(values - total)
