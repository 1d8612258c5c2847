"""Rows on their way through the model: windows of rows, their distinct inputs, batches of those."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfbatch.plan import Part

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[np.generic]]

NO_INPUT = -1  # in Work.input_of_row: the row has an error and nothing is computed for it


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some consecutive rows of one part; `first` counts from the start of the input file."""

    part: Part
    first: int
    rows: pa.Table


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a task makes of the input column of a window.

    Equal cells are one input, computed once. `lengths` (I,) is what each input costs in tokens;
    `collate` turns B inputs into model inputs, each padded to a length L that fits them all;
    `input_of_row` (R,) points into the inputs or is NO_INPUT, and then `errors` has the reason.
    """

    lengths: Indices
    collate: Callable[[Indices, int], Feeds]
    input_of_row: Indices
    errors: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs (B,) of one window that go through the model together, padded to `length` tokens."""

    inputs: Indices
    length: int

    def halves(self) -> "list[Batch]":
        """The same inputs in two batches, for when one does not fit."""
        return [Batch(inputs=inputs, length=self.length) for inputs in np.array_split(self.inputs, 2)]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return len(self.inputs) * self.length


def cut(lengths: Indices, budget: int, multiple: int = 1) -> list[Batch]:
    """Cut inputs into batches of like length: longest first, rows x padded length <= `budget`.

    `multiple` is what lengths are padded to a multiple of. An input longer than the budget is a
    batch of its own. The order is stable, so that the same lengths always give the same batches.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        length = max(1, -(-int(lengths[order[start]]) // multiple)) * multiple
        rows = max(1, budget // length)
        batches.append(Batch(inputs=order[start : start + rows], length=length))
        start += rows
    return batches
