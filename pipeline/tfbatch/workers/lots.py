"""In what order and how many at once the parts of a job are given out.

The largest come first, and the fewer at once the fewer are left, so that no worker is long at work when
the others are done. The parts of one lot follow one another in a file, which is read on from one to the
next.
"""

from collections import deque
from collections.abc import Container

from tfbatch.plan import Part

LOTS_A_WORKER = 4  # that what is left is given out in


def largest_first(parts: list[Part]) -> deque[Part]:
    """Parts in the order they are given out in; those that are as large, in their own."""
    return deque(sorted(parts, key=lambda part: -part.rows))


def next_lot(queue: deque[Part], workers: int, suspects: Container[Part] = ()) -> list[Part]:
    """Take a few parts that follow one another in a file off the queue, or one of those that may have cost a
    worker; none where none is left."""
    most = max(1, len(queue) // (LOTS_A_WORKER * workers))
    lot = [queue.popleft()] if queue else []
    while queue and len(lot) < most and (lot[-1].file, lot[-1].stop) == (queue[0].file, queue[0].first):
        if lot[-1] in suspects or queue[0] in suspects:
            break
        lot.append(queue.popleft())
    return lot
