"""Ray Data, as its guide to batch inference shows it: read, `map_batches` with a class, write.

An actor for each thread with one thread of its own. The rows are dealt out in blocks of a batch:
a file of one row group is one block, whatever number is asked for, and keeps one actor busy only.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.workloads import Model

BATCH = 32


class Loaded:
    """Where actors leave a file when their model is loaded; its time is read afterwards."""

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f"{output.name}.loaded")
        self.folder.mkdir(exist_ok=True)

    def mark(self) -> None:
        import uuid

        (self.folder / uuid.uuid4().hex).write_text(str(time.time()))

    def last(self) -> float:
        return max(float(file.read_text()) for file in self.folder.iterdir())


def run_actors(actor: type, model: Model, input: Path, output: Path, threads: int) -> float:  # noqa: A002
    """Score a file; returns when the last actor had loaded its model."""
    import ray

    loaded = Loaded(output)
    ray.init(num_cpus=threads, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    data: Any = ray.data.read_parquet(str(input))
    data = data.repartition(target_num_rows_per_block=BATCH)
    data = data.map_batches(
        actor,
        fn_constructor_args=(model, loaded),
        batch_size=BATCH,
        num_cpus=0.5,  # the other halves are for reading and writing
        compute=ray.data.ActorPoolStrategy(size=threads),
    )
    data.write_parquet(str(output))
    return loaded.last()
