"""In what order and how many at once the parts of a job are given out, and what they have cost.

The largest come first, and the fewer at once the fewer are left, so that no worker is long at work when
the others are done. The parts of one lot follow one another in a file, which is read on from one to the
next. What may have cost one worker is done by itself, so that it is known what the second died of.
"""

from collections import Counter, deque

from tfbatch.plan import Part

LOTS_A_WORKER = 4  # that what is left is given out in
LIVES = 2  # workers that a part may cost


class Lots:
    """The parts of a job that no worker has."""

    def __init__(self, parts: list[Part], workers: int) -> None:
        self._parts = deque(sorted(parts, key=lambda part: -part.rows))
        self._workers = workers
        self._deaths: Counter[Part] = Counter()

    def __len__(self) -> int:
        return len(self._parts)

    def take(self, held: list[Part]) -> list[Part]:
        """The next parts, for a worker that holds some; none where none is left, or where it is to be done with those
        first."""
        if held and self._parts and any(part in self._deaths for part in [*held, self._parts[0]]):
            return []
        most = max(1, len(self._parts) // (LOTS_A_WORKER * self._workers))
        lot = [self._parts.popleft()] if self._parts else []
        while self._parts and len(lot) < most and self._goes_with(lot[-1], self._parts[0]):
            lot.append(self._parts.popleft())
        return lot

    def _goes_with(self, last: Part, part: Part) -> bool:
        follows = (last.file, last.stop) == (part.file, part.first)
        return follows and last not in self._deaths and part not in self._deaths

    def take_back(self, held: list[Part]) -> Part | None:
        """Those that a worker had which died are the next; the first of them that has cost as many as it may."""
        self._parts.extendleft(reversed(held))
        self._deaths.update(held)
        return next((part for part in held if self._deaths[part] >= LIVES), None)
