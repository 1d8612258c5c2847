"""Texts that are tokenized together: as many as keep all threads busy and their tokens few."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from tfbatch.host.machine import available_threads
from tfbatch.stages import overlap

Made = TypeVar("Made")
AT_ONCE = 1 << 15  # characters a thread that are tokenized together: while they are, a token takes a hundred bytes
MOST_AT_ONCE = 8 * AT_ONCE
LOTS = 2  # of such texts that are on their way side by side


def side_by_side(encode: Callable[[slice], Made], sizes: list[int]) -> Iterator[Made]:
    """What is made of texts of so many characters, in order: while some become arrays, others are tokenized."""
    return overlap(encode, at_once(sizes), workers=LOTS, ahead=LOTS + 1)


def at_once(sizes: list[int]) -> Iterator[slice]:
    """Which texts are tokenized together, by how many characters of each are."""
    first, held, limit = 0, 0, min(AT_ONCE * available_threads(), MOST_AT_ONCE)
    for index, size in enumerate(sizes):
        if index > first and held + size > limit:
            yield slice(first, index)
            first, held = index, 0
        held += size
    if first < len(sizes):
        yield slice(first, len(sizes))
