"""Real rows as batches to compare on, prepared just as `tfbatch run` prepares them."""

from itertools import islice
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tfbatch.batches import Window, arrays
from tfbatch.batching.cutting import cut
from tfbatch.bundle import Bundle
from tfbatch.choices.columns import choose_columns, side_columns
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.inputs.sources import find_sources
from tfbatch.plan import Part, open_input
from tfbatch.tasks import load_task

from tfbatch_export.families import Tensors

SAMPLES = 64  # rows
BATCH_TOKENS = 2048
BATCHES = 16  # at most, of all lengths: pictures that are tiled make many


def real_batches(bundle: Bundle, path: Path, config: RunConfig, rows: int = SAMPLES) -> dict[str, Tensors]:
    """Of the first rows of a Parquet file 16 batches, from the longest to the shortest, by name; `config` names
    the columns, and the labels where a task is told them.

    Raises:
        UsageError: no column fits the bundle's task, or several do; or no row can be scored.
    """
    task_class = load_task(bundle.manifest.task)
    name = choose_columns(task_class, config, open_input(find_sources((str(path),))[0]).schema)
    task = task_class(bundle, config, name)
    with pq.ParquetFile(path) as file:
        first = list(islice(file.iter_batches(rows, columns=[name, *side_columns(task, config)]), 1))
    if not first:
        raise UsageError(f"--samples {path} has no rows")
    part = Part(file=0, first=0, stop=first[0].num_rows, folder=PurePath(), identity="")
    work = task.prepare(Window(part=part, first=0, rows=pa.Table.from_batches(first)))
    batches = cut(work.lengths, work.groups, BATCH_TOKENS)
    if not batches:
        reason = next(iter(work.errors.values()), "there is nothing in them")
        raise UsageError(f"--samples {path}: none of the first {rows} rows can be scored; {reason}")
    return {
        f"{len(batch.inputs)} real rows of {batch.length} tokens at most, batch {index}": {
            feed: torch.from_numpy(values) for feed, values in arrays(work.collate(batch.inputs, batch.length)).items()
        }
        for index, batch in enumerate(batches[:: -(-len(batches) // BATCHES)], start=1)
    }
