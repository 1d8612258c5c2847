"""A window of rows while its batches are computed, and the table it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tfbatch.batches import NO_RESULT, Batch, Counts, Indices, Window, Work
from tfbatch.batching.caps import Caps
from tfbatch.results import Floats
from tfbatch.session import OutOfMemory, Session
from tfbatch.tasks import Refuses, Task

OUT_OF_MEMORY = "out_of_memory: the row alone does not fit the GPU's memory"
NOT_FINITE = "not_finite: the model's result is not a number"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A window whose rows are ready to be written: `table`, and the reasons of bad rows by position in it.
    `result_of_row` (R,) points into `results`, which are empty unless they are to be looked at, or is NO_RESULT."""

    window: Window
    table: pa.Table
    errors: dict[int, str]
    results: Sequence[Any]
    result_of_row: Indices
    counts: Counts


class Scoring:
    """A window with its work.

    Batches may be computed on several threads at once: each has inputs of its own. Once the window is finished
    its work is gone, whoever still holds this.
    """

    def __init__(self, window: Window, work: Work) -> None:
        self.window = window
        self.work = work
        self.counts = Counts()
        self.reasons: dict[int, str] = {}  # of results that cannot be had

    def compute(self, session: Session, batch: Batch, caps: Caps) -> None:
        """Run a batch, in pieces where it does not fit the memory; a lone row that does not fit a GPU's is that
        row's error. What is found out of the memory is left in `caps`.

        Raises:
            MemoryError: a lone row does not fit a processor's.
        """
        for piece in caps.pieces(batch, self.work.lengths):
            self._compute(session, piece, caps)

    def _compute(self, session: Session, batch: Batch, caps: Caps) -> None:
        outputs = self._outputs(session, batch, caps)
        if outputs is None and len(batch.inputs) == 1:
            caps.refuse()
            self.reasons[int(self.work.result_of_input[batch.inputs[0]])] = OUT_OF_MEMORY
            return
        if outputs is None:
            caps.lower(batch)
            self.compute(session, batch, caps)
            return
        finite = np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
        for result in self.work.result_of_input[batch.inputs[~finite]].tolist():
            self.reasons[result] = NOT_FINITE
        if finite.all():
            self.work.receive(batch.inputs, outputs)
        else:
            self.work.receive(batch.inputs[finite], outputs[finite])

    def _outputs(self, session: Session, batch: Batch, caps: Caps) -> Floats | None:
        """What the model makes of a batch; None where it does not fit the memory, a lone input not even with
        nothing computed beside it."""
        with caps.beside():
            outputs = self._made(session, batch)
        if outputs is None and len(batch.inputs) == 1:
            with caps.alone():
                outputs = self._made(session, batch)
        return outputs

    def _made(self, session: Session, batch: Batch) -> Floats | None:
        """The same; None where it does not fit the memory now, and all it took is let go."""
        try:
            return session.run(self.work.collate(batch.inputs, batch.length))
        except (OutOfMemory, MemoryError):
            return None

    def finish(self, task: Task, schema: pa.Schema, kept: list[str], *, keeps_results: bool) -> Finished:
        """The window's rows as the output has them: kept columns, the task's, `error`."""
        work = self.work
        del self.work
        for result in self.reasons:
            work.results[result] = None
        self.reasons |= task.unfit(work.results) if isinstance(task, Refuses) else {}
        result_of_row = work.result_of_row.copy()
        errors = dict(work.errors)
        for row in np.flatnonzero(np.isin(result_of_row, list(self.reasons))) if self.reasons else ():
            errors[int(row)] = self.reasons[int(result_of_row[row])]
            result_of_row[row] = NO_RESULT
        rows = pa.array(result_of_row, mask=result_of_row == NO_RESULT)
        made = task.finish(work.results)
        results = work.results if keeps_results else []
        del work
        added = [in_order(column, rows) for column in made]
        texts = pa.array([errors.get(row) for row in range(len(rows))] if errors else [None] * len(rows), pa.string())
        carried = (as_written(self.window.rows.column(name), schema.field(name).type) for name in kept)
        columns = [*carried, *added, texts]
        table = pa.Table.from_arrays(columns, names=schema.names)
        return Finished(
            window=self.window, table=table, errors=errors, results=results, result_of_row=result_of_row,
            counts=self.counts,
        )  # fmt: skip


def as_written(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A carried column in the type that the output has it in."""
    return column if column.type == kind else column.cast(kind)


def in_order(column: pa.Array, rows: pa.Array) -> pa.Array:
    """The values of these rows (R,); without a copy where each is its own row's."""
    is_each = len(column) == len(rows) and not rows.null_count and np.array_equal(rows, np.arange(len(rows)))
    return column if is_each else column.take(rows)
