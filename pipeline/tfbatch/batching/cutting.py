"""A window's inputs to batches: which are computed together, how long they are padded, and what comes first."""

from collections import deque

import numpy as np

from tfbatch.batches import Batch, Indices


def cut(lengths: Indices, groups: Indices, budget: int, multiple: int = 1, longest: int | None = None) -> list[Batch]:
    """Cut inputs into batches of one group and like length: longest first, rows x padded length <= `budget`.

    `multiple` is what lengths are padded to, see `padded`, but not to more than `longest`: a model may
    have no places for more. An input longer than the budget is a
    batch of its own. The order is stable, so that the same lengths always give the same batches.
    """
    order = np.lexsort((groups, -lengths)) if groups.any() else np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        exact = max(1, int(lengths[order[start]]))
        length = padded(exact, multiple)
        if longest is not None:
            length = min(length, max(exact, longest))
        inputs = order[start : start + max(1, budget // length)]
        alike = groups[inputs] == groups[inputs[0]]
        if not alike.all():
            inputs = inputs[: int(np.argmin(alike))]
        batches.append(Batch(inputs=inputs, length=length))
        start += len(inputs)
    return batches


def padded(length: int, multiple: int) -> int:
    """A length as it is computed: to a multiple of so many tokens, and where that is not one, of a sixteenth of
    the next power of two. So there are few lengths, 8 of them from 64 to 128 and 8 again from 128 to 256."""
    coarse = 1 << max(0, (length - 1).bit_length() - 4) if multiple > 1 else 1
    step = max(multiple, coarse)
    return -(-length // step) * step


def firsts_first(batches: list[Batch]) -> list[Batch]:
    """The first batch of each shape before all others: OpenVINO sets a shape up once, and who needs it too meanwhile
    would wait. The others stay as they are, so that one shape often follows itself, which costs it least."""
    shapes: set[tuple[int, int]] = set()
    firsts: list[Batch] = []
    others: list[Batch] = []
    for batch in batches:
        (others if batch.shape in shapes else firsts).append(batch)
        shapes.add(batch.shape)
    return firsts + others


def turn_by_turn(batches: list[Batch]) -> list[Batch]:
    """Shapes begin one after another, the commonest first, as far apart as there are batches for, and take turns once
    they have begun. To set one up takes a GPU as long as ten batches, which can be computed meanwhile."""
    alike: dict[tuple[int, int], deque[Batch]] = {}
    for batch in batches:
        alike.setdefault(batch.shape, deque()).append(batch)
    shapes = deque(sorted(alike.values(), key=len, reverse=True))
    count = len(shapes)
    begun: deque[deque[Batch]] = deque()  # never empty: of so many the commonest hold enough
    found: list[Batch] = []
    for place in range(len(batches)):
        if shapes and place * count >= (count - len(shapes)) * len(batches):
            begun.appendleft(shapes.popleft())
        shape = begun.popleft()
        found.append(shape.popleft())
        if shape:
            begun.append(shape)
    return found
