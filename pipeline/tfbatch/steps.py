"""Between the stages of `flow`: parts become windows, windows batches, and batches whole windows again."""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from tfbatch.batches import Batch, Window, Work, count, divide
from tfbatch.batching.cutting import cut, firsts_first, turn_by_turn
from tfbatch.batching.room import Room
from tfbatch.job import Job
from tfbatch.plan import Part
from tfbatch.probe import Budget
from tfbatch.reader import read_windows
from tfbatch.scoring import Scoring

WINDOW = 32 << 20  # bytes that the rows of a window take on their way at most, or one row takes more
WIDE = 8 << 20  # bytes of a window's columns together, on a processor, where those that a task reads may take less

Item = TypeVar("Item")
Stream = Generator[Item | None, None, None]  # None: there may be more to come, and nobody need wait for it


@dataclass(frozen=True, kw_only=True)
class Step:
    """A batch of a window; after the last one the window is complete."""

    scoring: Scoring
    batch: Batch | None
    is_last: bool


def read_lots(job: Job, lots: Iterable[list[Part]]) -> Generator[Window, None, None]:
    """The rows of some lots of parts; the parts of one are read together."""
    task, scale, carried = job.task, job.device.window_scale, job.carried_columns
    size, wide = min(WINDOW, task.window_bytes * scale), min(WINDOW, WIDE * scale)
    for parts in lots:
        yield from read_windows(
            job.plan, parts, job.input_columns, task.window_rows * scale, size, carried=carried, wide=wide
        )


def light_windows(job: Job, lots: Iterable[list[Part]], room: Room) -> Generator[Window, None, None]:
    """The rows of some lots of parts in windows that do not weigh much; each takes its room."""
    with closing(read_lots(job, lots)) as windows:
        light = (light for window in windows for light in divide(window, job.task.weigh(window), WINDOW))
        window = next(light, None)
        while window is not None:
            following = next(light, None)
            room.take(window.weight, then=following.weight if following else 0)
            yield window
            window = following


def cut_windows(job: Job, scorings: Generator[Scoring, None, None], budget: Budget) -> Generator[Step, None, None]:
    """The batches of each window in turn. Nothing here holds its work, which goes when the window is finished."""
    with closing(scorings):
        for scoring in scorings:
            batches = batches_of(scoring.work, budget.of(scoring.work), job)
            scoring.counts = count(scoring.work, batches)
            for batch in batches[:-1]:
                yield Step(scoring=scoring, batch=batch, is_last=False)
            yield Step(scoring=scoring, batch=batches[-1] if batches else None, is_last=True)


def batches_of(work: Work, budget: int, job: Job) -> list[Batch]:
    """A window's work in batches, in an order that suits who sets their shapes up."""
    batches = cut(work.lengths, work.groups, budget, job.device.length_multiple, job.bundle.longest)
    return turn_by_turn(batches) if job.device.is_cuda else firsts_first(batches)


def complete(steps: Generator[Step, None, None]) -> Stream[Scoring]:
    """The windows whose last batch has been computed; None after each other batch, for windows before it
    need not wait for more."""
    with closing(steps):
        for step in steps:
            yield step.scoring if step.is_last else None
