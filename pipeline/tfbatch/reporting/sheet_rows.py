"""Which rows of a run are drawn on its contact sheet."""

from typing import Any

from tfbatch.batches import NO_RESULT
from tfbatch.job import Job
from tfbatch.outputs.output import Output
from tfbatch.pictures.contact_sheet import ContactSheet
from tfbatch.plan import Part
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


class FirstRows:
    """The first `limit` rows that are drawn, where parts are finished in any order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of_part: dict[Part, list[Any]] = {}

    def want(self, part: Part) -> bool:
        """Whether rows of a part may be among them."""
        return sum(len(rows) for other, rows in self._of_part.items() if place(other) < place(part)) < self._limit

    def keep(self, part: Part, rows: list[Any]) -> None:
        """Take the drawn rows of a part that is finished, and drop those that are now too many."""
        self._of_part[part] = rows
        self._of_part = {other: drawn for other, drawn in self._of_part.items() if drawn and self.want(other)}

    def rows(self) -> list[Any]:
        """They, in order."""
        return [row for part in sorted(self._of_part, key=place) for row in self._of_part[part]][: self._limit]


def place(part: Part) -> tuple[int, int]:
    """What parts are in order by."""
    return part.file, part.first
