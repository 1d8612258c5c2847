"""A job from beginning to end: what an earlier run left of it, its parts, their records, the summary."""

from tfbatch.flow import work
from tfbatch.host.stop import Stop
from tfbatch.job import Job
from tfbatch.outputs.claim import Record
from tfbatch.outputs.output import Output
from tfbatch.pictures.contact_sheet import ContactSheet
from tfbatch.plan import Part
from tfbatch.reporting.progress import Watcher, warn
from tfbatch.reporting.sheet_rows import sheet_of, show
from tfbatch.reporting.tally import Tally, check_errors, summary
from tfbatch.workers.crew import Crew


def run(job: Job, watcher: Watcher, tally: Tally, stop: Stop) -> Record:
    """Do a job, or what an earlier run left of it, and say what was done.

    Raises:
        TfbatchError: see `errors`; finished parts are kept.
    """
    output = output_of(job, stop)
    if not job.config.overwrite and output.is_finished():
        tally.begin(output.records())
        check_errors(job, tally)
        if sheet_of(job, output) is not None:
            say_undrawn(job)
        return summary(job, "already done", tally)
    try:
        output.open(overwrite=job.config.overwrite)
        tally.begin(output.records())
        pending = [part for part in job.plan.parts if part not in tally.records]
        check_errors(job, tally)
        watcher.start(job.plan.rows, job.plan.rows - sum(part.rows for part in pending))
        sheet = sheet_of(job, output)
        if min(job.workers, len(pending)) > 1:
            share_out(job, pending, output, tally, watcher, sheet, stop)
        elif pending:
            do_all(job, pending, output, tally, watcher, sheet, stop)
        if sheet is not None:
            if sheet.rows:
                output.keep_contact_sheet(sheet)
            else:
                say_undrawn(job)
        result = summary(job, "done", tally)
        output.finish(tally.records, result)
        return result
    finally:
        watcher.stop()
        output.close()


def do_all(
    job: Job, parts: list[Part], output: Output, tally: Tally, watcher: Watcher, sheet: ContactSheet | None, stop: Stop
) -> None:
    """Do all parts in this process."""
    for finished, record in work(job, [parts], output.append, tally, stop):
        if record is not None:
            tally.records[finished.window.part] = record
        watcher.advance(finished.table.num_rows, len(finished.errors))
        check_errors(job, tally)
        if sheet is not None:
            show(finished, job, sheet)


def share_out(
    job: Job, parts: list[Part], output: Output, tally: Tally, watcher: Watcher, sheet: ContactSheet | None, stop: Stop
) -> None:
    """Have the parts done by several processes, whose rows go the same way."""
    crew = Crew(job, parts, output, tally, watcher)
    try:
        crew.work(stop)
    finally:
        crew.end()
    if sheet is not None:
        crew.draw(sheet)


def say_undrawn(job: Job) -> None:
    """Say why the contact sheet that was asked for is not there."""
    why = "no contact sheet is drawn: this run scored no row that it could show; --overwrite starts anew"
    warn(why, log_format=job.config.log_format)


def output_of(job: Job, stop: Stop) -> Output:
    """Where a job's rows go; nothing is touched yet."""
    return Output(
        job.output, job.plan, job.schema, job.facts, job.fingerprint, job.sink, verify=job.config.verify, beat=stop.beat
    )
