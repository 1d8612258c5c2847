"""A window of rows while its batches are computed, and the table it becomes."""

import numpy as np
import pyarrow as pa

from tfbatch.batches import NO_INPUT, Batch, Floats, Window, Work
from tfbatch.session import OutOfMemory, Session
from tfbatch.tasks import Task

OUT_OF_MEMORY = "out_of_memory: the row alone does not fit the device's memory"
NOT_FINITE = "not_finite: the model's result is not a number"


class Scoring:
    """Gathers the model outputs of one window's inputs.

    Batches may be computed on several threads at once: each fills rows of its own.
    """

    def __init__(self, window: Window, work: Work, output_shape: tuple[int, ...]) -> None:
        self.window = window
        self.work = work
        self.outputs: Floats = np.zeros((len(work.lengths), *output_shape), np.float32)
        self.reasons: dict[int, str] = {}  # of inputs that have no result

    def compute(self, session: Session, batch: Batch) -> None:
        """Run a batch, in halves where it does not fit the memory; a lone row that does not fit
        is that row's error."""
        try:
            self.outputs[batch.inputs] = session.run(self.work.collate(batch.inputs, batch.length))
        except OutOfMemory:
            if len(batch.inputs) == 1:
                self.reasons[int(batch.inputs[0])] = OUT_OF_MEMORY
                return
            for half in batch.halves():
                self.compute(session, half)

    def table(self, task: Task, schema: pa.Schema, kept: list[str]) -> tuple[pa.Table, dict[int, str]]:
        """The window's rows as the output has them (kept columns, the task's, `error`), and the
        reasons by position of the rows that have one."""
        finite = np.isfinite(self.outputs).all(axis=tuple(range(1, self.outputs.ndim)))
        reasons = {int(index): NOT_FINITE for index in np.flatnonzero(~finite)} | self.reasons
        self.outputs[list(reasons)] = 0
        input_of_row = self.work.input_of_row.copy()
        errors = dict(self.work.errors)
        for row in np.flatnonzero(np.isin(input_of_row, list(reasons))) if reasons else ():
            errors[int(row)] = reasons[int(input_of_row[row])]
            input_of_row[row] = NO_INPUT
        rows = pa.array(input_of_row, mask=input_of_row == NO_INPUT)
        added = [column.take(rows) for column in task.finish(self.outputs)]
        texts = pa.array([errors.get(row) for row in range(len(rows))] if errors else [None] * len(rows), pa.string())
        kept_columns = [self.window.rows.column(name) for name in kept]
        return pa.Table.from_arrays([*kept_columns, *added, texts], schema=schema), errors
