"""A window of rows while its batches are computed, and the table it becomes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tfbatch.batches import NO_RESULT, Batch, Indices, Window, Work
from tfbatch.session import OutOfMemory, Session
from tfbatch.tasks import Task

OUT_OF_MEMORY = "out_of_memory: the row alone does not fit the device's memory"
NOT_FINITE = "not_finite: the model's result is not a number"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A window whose rows are ready to be written: `table`, and the reasons of bad rows by position
    in it. `result_of_row` (R,) points into `results`, or is NO_RESULT."""

    window: Window
    table: pa.Table
    errors: dict[int, str]
    results: list[Any]
    result_of_row: Indices


class Scoring:
    """A window with its work.

    Batches may be computed on several threads at once: each has inputs of its own.
    """

    def __init__(self, window: Window, work: Work) -> None:
        self.window = window
        self.work = work
        self.reasons: dict[int, str] = {}  # of results that cannot be had

    def compute(self, session: Session, batch: Batch) -> None:
        """Run a batch, in halves where it does not fit the memory; a lone row that does not fit
        is that row's error."""
        try:
            outputs = session.run(self.work.collate(batch.inputs, batch.length))
        except (OutOfMemory, MemoryError):
            if len(batch.inputs) == 1:
                self.reasons[int(self.work.result_of_input[batch.inputs[0]])] = OUT_OF_MEMORY
                return
            for half in batch.halves():
                self.compute(session, half)
            return
        finite = np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
        for result in self.work.result_of_input[batch.inputs[~finite]].tolist():
            self.reasons[result] = NOT_FINITE
        if finite.all():
            self.work.receive(batch.inputs, outputs)
        else:
            self.work.receive(batch.inputs[finite], outputs[finite])

    def finish(self, task: Task, schema: pa.Schema, kept: list[str]) -> Finished:
        """The window's rows as the output has them: kept columns, the task's, `error`."""
        for result in self.reasons:
            self.work.results[result] = None
        result_of_row = self.work.result_of_row.copy()
        errors = dict(self.work.errors)
        for row in np.flatnonzero(np.isin(result_of_row, list(self.reasons))) if self.reasons else ():
            errors[int(row)] = self.reasons[int(result_of_row[row])]
            result_of_row[row] = NO_RESULT
        rows = pa.array(result_of_row, mask=result_of_row == NO_RESULT)
        added = [column.take(rows) for column in task.finish(self.work.results)]
        texts = pa.array([errors.get(row) for row in range(len(rows))] if errors else [None] * len(rows), pa.string())
        columns = [*(self.window.rows.column(name) for name in kept), *added, texts]
        table = pa.Table.from_arrays(columns, names=schema.names)
        return Finished(
            window=self.window, table=table, errors=errors, results=self.work.results, result_of_row=result_of_row
        )
