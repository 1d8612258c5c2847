"""Which rows of a run are drawn on its contact sheet."""

from tfbatch.batches import NO_RESULT
from tfbatch.contact_sheet import ContactSheet
from tfbatch.job import Job
from tfbatch.output import Output
from tfbatch.scoring import Finished
from tfbatch.tasks import MakesPictures


def sheet_of(job: Job, output: Output) -> ContactSheet | None:
    """An empty contact sheet where one was asked for and is not there yet."""
    if job.config.contact_sheet is None or output.has_contact_sheet:
        return None
    return ContactSheet(f"{job.bundle.manifest.task}, {job.bundle.path}", job.config.contact_sheet)


def show(finished: Finished, job: Job, sheet: ContactSheet) -> None:
    """Put rows without an error on the contact sheet, as long as it has place."""
    assert isinstance(job.task, MakesPictures)
    for row, result in enumerate(finished.result_of_row.tolist()):
        if sheet.is_complete:
            return
        if result != NO_RESULT:
            sheet.add(f"row {finished.window.first + row:,}", job.task.panels(finished.results[result]))
