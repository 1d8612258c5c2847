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
is loaded while the first windows are prepared. What lies between two stages is in `steps`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol

import pyarrow as pa

from tfbatch.batches import Window
from tfbatch.batching.caps import Caps
from tfbatch.batching.room import Room
from tfbatch.host.machine import available_threads
from tfbatch.host.stop import Stop
from tfbatch.job import Job
from tfbatch.outputs.claim import Record
from tfbatch.plan import Part
from tfbatch.probe import Budget
from tfbatch.reporting.tally import Tally
from tfbatch.runtimes.device import open_session
from tfbatch.scoring import Finished, Scoring
from tfbatch.session import Session
from tfbatch.stages import after, in_turn, meanwhile, overlap
from tfbatch.steps import Step, Stream, complete, cut_windows, light_windows
from tfbatch.tasks import TakesTop

ROOM_A_THREAD = 192 << 20  # bytes under way


class Append(Protocol):
    """`Output.append`, or `Drafts.append` where another process records."""

    def __call__(
        self, part: Part, table: pa.Table, errors: int, *, batch_tokens: int | None = None
    ) -> Record | None: ...


Opened = Callable[[Job, int, Stop], Session]
Written = tuple[Finished, Record | None]


def work(
    job: Job, lots: Iterable[list[Part]], append: Append, tally: Tally, stop: Stop, opened: Opened | None = None
) -> Iterator[Written]:
    """Score lots of parts and write them; each window, and with the last one of a part its record. A session
    is opened by `session_of`, or as `opened` has it."""
    with closing(Flow(job, append, tally, stop).score(lots, opened or session_of)) as written:
        for finished, record in filter(None, written):
            tally.count(finished)
            yield finished, record
            stop.beat()  # now that whoever writes the summary knows of it


class Flow:
    """What each stage does for one job, and how they follow one another."""

    def __init__(self, job: Job, append: Append, tally: Tally, stop: Stop) -> None:
        self._job, self._append, self._tally, self._stop = job, append, tally, stop
        self._threads = job.config.threads or available_threads()
        self._room, self._caps = Room(self._threads * ROOM_A_THREAD), Caps(job.device)

    def score(self, lots: Iterable[list[Part]], opened: Opened) -> Stream[Written]:
        """The windows of some lots of parts, in order, each with the table it became once that is written."""
        job, device, threads, clock = self._job, self._job.device, self._threads, self._tally.clock
        preparing = 1 if job.task.prepares_in_parallel else threads
        computing = device.callers(threads)
        with meanwhile(lambda: opened(job, computing, self._stop), clock.load) as session:
            windows = clock.read.timed(light_windows(job, lots, self._room))
            scorings = overlap(
                self._prepare, windows, workers=preparing, ahead=preparing + device.windows_ahead,
                is_full=self._is_full, stage=clock.prepare,
            )  # fmt: skip
            budget = Budget(job, session, computing, self._tally, self._stop)
            batches = cut_windows(job, after(session, scorings), budget)
            steps = overlap(
                partial(self._compute, session), batches, workers=computing, ahead=computing * device.batches_ahead,
                is_full=self._ends_full_window, stage=clock.compute,
            )  # fmt: skip
            tables: Stream[Finished] = overlap(
                self._finish, complete(steps), workers=threads, ahead=threads, is_full=self._is_full, stage=clock.finish
            )
            with closing(self._written(tables)) as written:
                for done in written:
                    yield done
                    self._room.release(done[0].window.weight if done else 0)

    def _prepare(self, window: Window) -> Scoring:
        self._stop.beat()
        return Scoring(window.only(self._job.kept), self._job.task.prepare(window))

    def _compute(self, session: Callable[[], Session], step: Step) -> Step:
        self._stop.beat()
        if step.batch:
            step.scoring.compute(session(), step.batch, self._caps)
        return step

    def _finish(self, scoring: Scoring) -> Finished:
        self._stop.beat()
        job = self._job
        return scoring.finish(job.task, job.schema, job.kept, keeps_results=job.config.contact_sheet is not None)

    def _written(self, tables: Stream[Finished]) -> Stream[Written]:
        stage = self._tally.clock.write
        if self._job.device.is_cuda:
            return overlap(self._write, tables, workers=1, ahead=2, is_full=self._is_full, stage=stage)
        return in_turn(self._write, tables, stage=stage)

    def _write(self, done: Finished) -> Written:
        part, tokens = done.window.part, self._tally.batch_tokens
        return done, self._append(part, done.table, len(done.errors), batch_tokens=tokens)

    def _is_full(self, _: object) -> bool:
        return self._room.is_full

    def _ends_full_window(self, step: Step) -> bool:
        return step.is_last and self._room.is_full


def session_of(job: Job, threads: int, stop: Stop) -> Session:
    """What gives the results of a job's inputs."""
    reduction = job.bundle.pooling or (job.task.top if isinstance(job.task, TakesTop) else None)
    return open_session(job.graph, job.device, job.precision, threads, stop, job.bundle.output, reduction)
