"""One row's way from Parquet to Parquet.

    in.parquet, row 5003
      make_job       the row is in part 0 (rows 0 to 99,999 of file 0); what can be refused has been
      read_windows   record batches -> Window(part 0, rows 4,096 to 6,143)
      task.prepare   on a thread: tokenize or decode; equal cells are one input, a null is an error
      cut            inputs by length, longest first: rows x padded length <= the token budget
      compute        on other threads: a batch of arrays through the session, back into its window
      table          softmax and labels; every row gets its input's columns, or nulls and its error
      append         on this thread: to the part's temporary file; part full -> sync, link, record

The stages are generators that pull from one another, `overlap` a few items ahead on threads.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from tfbatch.batches import Batch, Window, cut
from tfbatch.claim import Record
from tfbatch.config import error_limit
from tfbatch.errors import TooManyRowErrors
from tfbatch.job import Job
from tfbatch.machine import available_threads, peak_memory
from tfbatch.output import Output
from tfbatch.plan import Part
from tfbatch.progress import Watcher
from tfbatch.reader import read_windows
from tfbatch.scoring import Scoring
from tfbatch.session import Session
from tfbatch.stages import overlap


@dataclass
class Tally:
    """What is counted on the way: rows scored now, all errors, the first one met now and where, and
    tokens, of which padding makes more than there really are."""

    rows: int = 0
    errors: int = 0
    first_error: tuple[Part, int, str] | None = None
    real_tokens: int = 0
    computed_tokens: int = 0

    def count(self, window: Window, errors: Mapping[int, str]) -> None:
        """Add the rows of a window; `errors` are by position in it."""
        self.rows += window.rows.num_rows
        self.errors += len(errors)
        if errors and self.first_error is None:
            row = min(errors)
            self.first_error = (window.part, window.first + row, errors[row])


@dataclass(frozen=True, kw_only=True)
class Step:
    """A batch of a window; after the last one the window is complete."""

    scoring: Scoring
    batch: Batch | None
    is_last: bool


def run(job: Job, watcher: Watcher) -> Record:
    """Do a job, or what an earlier run left of it, and say what was done.

    Raises:
        TfbatchError: see `errors`; finished parts are kept.
    """
    started, tally = time.monotonic(), Tally()
    output = output_of(job)
    if not job.config.overwrite and output.is_finished():
        records = output.records()
        tally.errors = count_errors(records)
        check_errors(job, tally)
        return summary(job, "already done", records, tally, started)
    try:
        output.open(overwrite=job.config.overwrite)
        records = output.records()
        pending = [part for part in job.plan.parts if part not in records]
        tally.errors = count_errors(records)
        check_errors(job, tally)
        watcher.start(job.plan.rows, job.plan.rows - sum(part.rows for part in pending))
        for scoring in score(job, pending, tally):
            window = scoring.window
            table, errors = scoring.table(job.task, job.schema, job.kept)
            if record := output.append(window.part, table, len(errors)):
                records[window.part] = record
            watcher.advance(table.num_rows, len(errors))
            tally.count(window, errors)
            check_errors(job, tally)
        result = summary(job, "done", records, tally, started)
        output.finish(records, result)
        return result
    finally:
        watcher.stop()
        output.close()


def output_of(job: Job) -> Output:
    """Where a job's rows go; nothing is touched yet."""
    return Output(job.output, job.plan, job.schema, job.facts, job.fingerprint)


def score(job: Job, parts: list[Part], tally: Tally) -> Iterator[Scoring]:
    """The windows of some parts, in order, with all of their batches computed."""
    if not parts:
        return
    threads = job.config.threads or available_threads()
    preparing = 1 if job.task.prepares_in_parallel else threads
    computing = 1 if job.device.is_cuda else threads
    session = Session(job.bundle.graph_path(job.precision), job.device)

    def prepare(window: Window) -> Scoring:
        return Scoring(window, job.task.prepare(window.rows.column(job.column)), job.task.output_shape)

    def compute(step: Step) -> Step:
        if step.batch:
            step.scoring.compute(session, step.batch)
        return step

    windows = read_windows(job.plan, parts, job.columns_read, job.task.window_rows, job.task.window_bytes)
    scorings = overlap(prepare, windows, workers=preparing, ahead=preparing + 1)
    steps = overlap(compute, cut_windows(job, scorings, tally), workers=computing, ahead=2 * computing)
    with closing(steps):
        for step in steps:
            if step.is_last:
                yield step.scoring


def cut_windows(job: Job, scorings: Generator[Scoring, None, None], tally: Tally) -> Iterator[Step]:
    """The batches of each window in turn."""
    budget = job.config.batch_tokens or job.device.batch_tokens
    with closing(scorings):
        for scoring in scorings:
            lengths = scoring.work.lengths
            batches = cut(lengths, budget, job.device.length_multiple)
            tally.real_tokens += int(lengths.sum())
            tally.computed_tokens += sum(batch.tokens for batch in batches)
            for batch in batches[:-1]:
                yield Step(scoring=scoring, batch=batch, is_last=False)
            yield Step(scoring=scoring, batch=batches[-1] if batches else None, is_last=True)


def check_errors(job: Job, tally: Tally) -> None:
    """Fail the job as soon as more rows are bad than allowed."""
    limit = error_limit(job.config.max_errors, job.plan.rows)
    if tally.errors > limit:
        where = f"the error column of the parts in {job.output} says which and why"
        if tally.first_error is not None:
            part, row, reason = tally.first_error
            where = f"the first met now is row {row:,} (from 0) of {job.plan.files[part.file].path}, {reason}"
        raise TooManyRowErrors(
            f"{tally.errors:,} rows have errors, --max-errors {job.config.max_errors} allows {limit:,}; {where}"
        )


def count_errors(records: Mapping[Part, Record]) -> int:
    """Rows with an error in finished parts."""
    return sum(record["errors"] for record in records.values())


def summary(job: Job, status: str, records: Mapping[Part, Record], tally: Tally, started: float) -> Record:
    """What a scheduler reads of a run; `rows_per_second` is of the rows this process scored."""
    seconds = time.monotonic() - started
    return {
        "status": status,
        "rows": sum(record["rows"] for record in records.values()),
        "errors": count_errors(records),
        "parts": len(records),
        "output": str(job.output),
        "seconds": round(seconds, 3),
        "rows_per_second": round(tally.rows / seconds, 1),
        "bundle": str(job.bundle.path),
        "task": job.bundle.manifest.task,
        "device": job.device.name,
        "precision": job.precision,
        "peak_memory_bytes": peak_memory(),
        "padding_ratio": round(tally.computed_tokens / tally.real_tokens, 4) if tally.real_tokens else None,
    }
