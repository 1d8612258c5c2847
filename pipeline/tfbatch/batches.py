"""Rows on their way through the model: windows of rows, their distinct inputs, batches of those."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfbatch.plan import Part
from tfbatch.results import Floats, Rows

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[np.generic]

NO_RESULT = -1  # in Work.result_of_row: the row has an error and nothing is computed for it


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some consecutive rows of one part; `first` counts from the start of the input file, `weight`
    is about how many bytes they take on their way."""

    part: Part
    first: int
    rows: pa.Table
    weight: int = 0

    def only(self, columns: list[str]) -> "Window":
        """The same rows without what else they hold."""
        return replace(self, rows=self.rows.select(columns))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """B pictures of (H, W, 3) bytes, and what each level of a byte is to the model, by channel: `levels` (3, 256).

    As an array they are (B, 3, H, W) float32. A GPU is sent the bytes, a quarter as many, and looks the
    levels up itself.
    """

    pixels: Sequence[npt.NDArray[np.uint8]]
    levels: Floats

    def __len__(self) -> int:
        return len(self.pixels)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("pictures are bytes: as floats they are a copy")
        values = np.empty((len(self), 3, *self.pixels[0].shape[:2]), np.float32)
        for picture, planes in zip(self.pixels, values, strict=True):
            for channel, plane in enumerate(planes):
                # A byte is never out of bounds; to look would cost a copy.
                np.take(self.levels[channel], picture[..., channel], out=plane, mode="clip")
        return values if dtype is None else values.astype(dtype, copy=False)


Feeds = Mapping[str, Array | Pictures]


def arrays(feeds: Feeds) -> dict[str, Array]:
    """Model inputs for a runtime that takes nothing but arrays."""
    return {name: np.asarray(values) for name, values in feeds.items()}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a task makes of a window: model inputs, and where their outputs go.

    A result is what a row gets. `result_of_row` (R,) points into `results` or is NO_RESULT, and
    then `errors` has the reason; equal cells share one. An input goes through the model:
    `result_of_input` (I,) says what result it is for, which may be made of none or of several.
    `lengths` (I,) is what each input costs in tokens; only inputs of one group (I,) share a batch.
    `collate` turns B inputs into model inputs, each padded to a length L that fits them all;
    `receive` puts B outputs where their results are made, none of them as a view. `truncated` rows did not go in whole.
    """

    lengths: Indices
    groups: Indices
    result_of_input: Indices
    result_of_row: Indices
    results: list[Any] | Rows
    errors: dict[int, str]
    collate: Callable[[Indices, int], Feeds]
    receive: Callable[[Indices, Floats], None]
    truncated: int = 0


def one_result_each(
    lengths: Indices,
    result_of_row: Indices,
    errors: dict[int, str],
    collate: Callable[[Indices, int], Feeds],
    truncated: int = 0,
) -> Work:
    """Work in which every input's output, as it is, is a result."""
    results = Rows(len(lengths))
    return Work(
        lengths=lengths,
        groups=np.zeros(len(lengths), np.int64),
        result_of_input=np.arange(len(lengths)),
        result_of_row=result_of_row,
        results=results,
        errors=errors,
        collate=collate,
        receive=results.put,
        truncated=truncated,
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs (B,) of one window that go through the model together, padded to `length` tokens."""

    inputs: Indices
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and tokens of each, padding included."""
        return len(self.inputs), self.length

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return len(self.inputs) * self.length


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a window's work comes to: tokens there are, and that are computed with padding; rows that `repeated`
    another and were not computed again; rows `truncated` to the model's length."""

    real_tokens: int = 0
    computed_tokens: int = 0
    repeated: int = 0
    truncated: int = 0


def count(work: Work, batches: list[Batch]) -> Counts:
    """What some work comes to in these batches."""
    return Counts(
        real_tokens=int(work.lengths.sum()),
        computed_tokens=sum(batch.tokens for batch in batches),
        repeated=int((work.result_of_row != NO_RESULT).sum()) - len(work.results),
        truncated=work.truncated,
    )


def evenly(window: Window) -> Indices:
    """What the window's columns take, in bytes, as if each row (R,) took as much."""
    count = window.rows.num_rows
    return np.full(count, window.rows.nbytes // max(count, 1), np.int64)


def divide(window: Window, weights: Indices, limit: int) -> Iterator[Window]:
    """A window in pieces of rows that weigh `limit` together, or of one row that weighs more."""
    start = held = 0
    for row, weight in enumerate(weights.tolist()):
        if row > start and held + weight > limit:
            yield replace(window, first=window.first + start, rows=window.rows.slice(start, row - start), weight=held)
            start, held = row, 0
        held += weight
    yield replace(window, first=window.first + start, rows=window.rows.slice(start), weight=held)
