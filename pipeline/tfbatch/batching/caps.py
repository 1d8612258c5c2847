"""What batches have found out about a device's memory: how many inputs fit it, and which need all of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from tfbatch.batches import Batch, Indices
from tfbatch.batching.cutting import padded
from tfbatch.session import Device


class Caps:
    """The most inputs of a length that are computed at once, once some did not fit the memory; what holds for
    a length holds for longer ones.

    Threads that compute do so `beside` one another; what did not fit so may fit `alone`.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._most: dict[int, int] = {}
        self._changed = Condition()
        self._computing = 0
        self._is_alone = False

    def of(self, length: int) -> int:
        return min((most for capped, most in list(self._most.items()) if capped <= length), default=sys.maxsize)

    def lower(self, batch: Batch) -> None:
        """Half as many as those that did not fit."""
        self._most[batch.length] = min(self.of(batch.length), max(1, len(batch.inputs) // 2))

    def pieces(self, batch: Batch, lengths: Indices) -> list[Batch]:
        """A batch, or so many of its inputs at once as may fit, each piece as long as its own inputs are: what one
        of them needs is not held against shorter ones. `lengths` (I,) are all inputs' own."""
        most = self.of(batch.length)
        if len(batch.inputs) <= most:
            return [batch]
        starts = range(0, len(batch.inputs), most)
        parts = [batch.inputs[start : start + most] for start in starts]
        longest = [padded(max(1, int(lengths[part].max())), self._device.length_multiple) for part in parts]
        return [
            Batch(inputs=part, length=min(batch.length, length)) for part, length in zip(parts, longest, strict=True)
        ]

    def refuse(self) -> None:
        """What becomes of a lone input that does not even fit alone: it may have more tokens than a GPU has memory
        for. A processor's memory is the job's, which is short of it: that says nothing of a row.

        Raises:
            MemoryError: on a processor.
        """
        if not self._device.is_cuda:
            raise MemoryError

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Within, others may compute too."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._computing += 1
        try:
            yield
        finally:
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, nobody else computes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._computing == 0)
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
