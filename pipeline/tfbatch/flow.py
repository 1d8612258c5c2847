"""One row's way from Parquet to Parquet.

    in.parquet, row 5003
      make_job       the row is in part 0 (rows 0 to 99,999 of file 0); what can be refused has been
      read_windows   record batches -> Window(part 0, rows 4,096 to 8,191), no heavier than WINDOW
      task.prepare   on a thread: tokenize or decode; equal cells are one input, a null is an error
      cut            inputs by length, longest first: rows x padded length <= the token budget
      compute        on other threads: a batch of arrays through the session, back into its window
      finish         on other threads: labels, or pictures encoded; every row gets its input's
                     columns, or nulls and its error
      append         on this thread, for a GPU on one beside it: to the part's temporary file; part
                     full -> sync, link, record

Where there are several workers, a part goes this way in one of them, and the job's own process records it.
`execution` has what is done about a job before and after its rows.

The stages are generators that pull from one another, `overlap` a few items ahead on threads, fewer
where the items are heavy: what is under way in all of them together is counted in a Room. The graph
is loaded while the first windows are prepared.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

from tfbatch.batches import Batch, Window, Work, divide
from tfbatch.claim import Record
from tfbatch.cutting import cut, firsts_first, turn_by_turn
from tfbatch.device import open_session
from tfbatch.job import Job
from tfbatch.machine import available_threads
from tfbatch.plan import Part
from tfbatch.probe import Budget
from tfbatch.reader import read_windows
from tfbatch.room import Room
from tfbatch.scoring import Caps, Finished, Scoring
from tfbatch.session import Session
from tfbatch.stages import after, in_turn, meanwhile, overlap
from tfbatch.stop import Stop
from tfbatch.tally import Tally
from tfbatch.tasks import TakesTop

WINDOW = 32 << 20  # bytes that the rows of a window take on their way at most, or one row takes more
WIDE = 8 << 20  # bytes of a window's columns together, on a processor, where those that a task reads may take less
ROOM_A_THREAD = 192 << 20  # bytes under way


class Append(Protocol):
    """`Output.append`, or `Drafts.append` where another process records."""

    def __call__(
        self, part: Part, table: pa.Table, errors: int, *, batch_tokens: int | None = None
    ) -> Record | None: ...


Opened = Callable[[Job, int, Stop], Session]
Written = tuple[Finished, Record | None]
Item = TypeVar("Item")
Stream = Generator[Item | None, None, None]  # None: there may be more to come, and nobody need wait for it


@dataclass(frozen=True, kw_only=True)
class Step:
    """A batch of a window; after the last one the window is complete."""

    scoring: Scoring
    batch: Batch | None
    is_last: bool


def work(
    job: Job, lots: Iterable[list[Part]], append: Append, tally: Tally, stop: Stop, opened: Opened | None = None
) -> Iterator[Written]:
    """Score lots of parts and write them; each window, and with the last one of a part its record. A session
    is opened by `session_of`, or as `opened` has it."""
    with closing(score(job, lots, append, tally, stop, opened or session_of)) as written:
        for finished, record in filter(None, written):
            tally.count(finished.window, finished.errors)
            stop.beat()
            yield finished, record


def score(
    job: Job, lots: Iterable[list[Part]], append: Append, tally: Tally, stop: Stop, opened: Opened
) -> Stream[Written]:
    """The windows of some lots of parts, in order, each with the table it became once that is written."""
    device, threads, clock = job.device, job.config.threads or available_threads(), tally.clock
    preparing = 1 if job.task.prepares_in_parallel else threads
    prepared_ahead = preparing + device.windows_ahead
    computing = device.callers(threads)
    computed_ahead = computing * device.batches_ahead
    room, caps = Room(threads * ROOM_A_THREAD), Caps()

    def prepare(window: Window) -> Scoring:
        stop.beat()
        return Scoring(window.only(job.kept), job.task.prepare(window))

    def compute(step: Step) -> Step:
        stop.beat()
        if step.batch:
            step.scoring.compute(session(), step.batch, caps)
        return step

    def finish(scoring: Scoring) -> Finished:
        stop.beat()
        return scoring.finish(job.task, job.schema, job.kept, keeps_results=job.config.contact_sheet is not None)

    def write(done: Finished) -> Written:
        return done, append(done.window.part, done.table, len(done.errors), batch_tokens=tally.batch_tokens)

    def is_full(_: object) -> bool:
        return room.is_full

    def ends_full_window(step: Step) -> bool:
        return step.is_last and room.is_full

    def load() -> Session:
        return opened(job, computing, stop)

    with meanwhile(load, clock.load) as session:
        windows = clock.read.timed(light_windows(job, lots, room))
        scorings = overlap(
            prepare, windows, workers=preparing, ahead=prepared_ahead, is_full=is_full, stage=clock.prepare
        )
        prepared = after(session, scorings)
        batches = cut_windows(job, prepared, Budget(job, session, computing, tally, stop), tally)
        steps = overlap(
            compute, batches, workers=computing, ahead=computed_ahead, is_full=ends_full_window, stage=clock.compute
        )
        tables: Stream[Finished] = overlap(
            finish, complete(steps), workers=threads, ahead=threads, is_full=is_full, stage=clock.finish
        )
        written: Stream[Written] = (
            overlap(write, tables, workers=1, ahead=2, is_full=is_full, stage=clock.write)
            if device.is_cuda
            else in_turn(write, tables, stage=clock.write)
        )
        with closing(written):
            for done in written:
                yield done
                room.release(done[0].window.weight if done else 0)


def session_of(job: Job, threads: int, stop: Stop) -> Session:
    """What gives the results of a job's inputs."""
    reduction = job.bundle.pooling or (job.task.top if isinstance(job.task, TakesTop) else None)
    return open_session(job.graph, job.device, job.precision, threads, stop, job.bundle.output, reduction)


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


def cut_windows(
    job: Job, scorings: Generator[Scoring, None, None], budget: Budget, tally: Tally
) -> Generator[Step, None, None]:
    """The batches of each window in turn. Nothing here holds its work, which goes when the window is finished."""
    with closing(scorings):
        for scoring in scorings:
            batches = batches_of(scoring.work, budget.of(scoring.work), job)
            tally.count_work(scoring.work, batches)
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
