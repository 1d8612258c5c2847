"""What a window's results lie in: one array, where each is what the model gives."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]


class Rows(Sequence[Row | None]):
    """N results that are the rows (N, ...) of one array; one that is not there is None, and zeros in the array.

    They may be put in by several threads at once, each its own.
    """

    def __init__(self, count: int) -> None:
        self._known = np.zeros(count, bool)
        self._array: list[Row] = []  # one, made when its width is known; of two begun at once the first counts

    def put(self, indices: npt.NDArray[np.int64], values: Row) -> None:
        """Copy values (B, ...) to the rows `indices` (B,)."""
        if not self._array:
            self._array.append(np.zeros((len(self), *values.shape[1:]), values.dtype))
        self._array[0][indices] = values
        self._known[indices] = True

    def array(self, width: int = 0) -> Row:
        """All of them (N, ...), not a copy; (N, width) zeros where there is none."""
        return self._array[0] if self._array else np.zeros((len(self), width), np.float32)

    def __setitem__(self, index: int, none: None) -> None:
        """Take a result away."""
        self._known[index] = False
        if self._array:
            self._array[0][index] = 0

    def __len__(self) -> int:
        return len(self._known)

    @overload
    def __getitem__(self, index: int) -> Row | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row | None]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row | None] | None:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._array[0][index] if self._known[index] else None


def stacked(results: Sequence[Row | None], width: int) -> Row:
    """Results (width,) under one another (N, width) float32, without a copy where they are that already; those
    of no result are zeros, or mean nothing."""
    if isinstance(results, Rows):
        return results.array(width).astype(np.float32, copy=False)
    none = np.zeros(width, np.float32)
    return np.array([none if found is None else found for found in results], np.float32).reshape(-1, width)
