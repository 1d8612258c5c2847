"""Results in one array, where each is what the model gives."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Rows(Sequence[Floats | None]):
    """N results that are the rows (N, ...) of one array; one that is not there is None, and zeros in the array.

    They may be put in by several threads at once, each its own.
    """

    def __init__(self, count: int) -> None:
        self._known = np.zeros(count, bool)
        self._array: list[Floats] = []  # one, made when its width is known; of two begun at once the first counts

    def put(self, indices: npt.NDArray[np.int64], values: Floats) -> None:
        """Copy values (B, ...) to the rows `indices` (B,).

        Raises:
            ValueError: they are not as many.
        """
        if len(values) != len(indices):  # numpy would repeat a single one
            raise ValueError(f"{len(values)} results for {len(indices)} inputs")
        if not self._array:
            self._array.append(np.zeros((len(self), *values.shape[1:]), values.dtype))
        self._array[0][indices] = values
        self._known[indices] = True

    def array(self, width: int = 0) -> Floats:
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
    def __getitem__(self, index: int) -> Floats | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Floats | None]: ...
    def __getitem__(self, index: int | slice) -> Floats | list[Floats | None] | None:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._array[0][index] if self._known[index] else None


def stacked(results: Sequence[Floats | None], width: int) -> Floats:
    """Results (width,) under one another (N, width) float32, without a copy where they are that already; those
    of no result are zeros.

    Raises:
        ValueError: they have another width.
    """
    if isinstance(results, Rows):
        return results.array(width).astype(np.float32, copy=False).reshape(len(results), width)
    none = np.zeros(width, np.float32)
    return np.array([none if found is None else found for found in results], np.float32).reshape(len(results), width)
