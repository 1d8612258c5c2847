"""`python -m benchmarks.host`: how many rows a second this machine can feed a model, and take back from one.

Whole jobs from Parquet to Parquet in which the model takes no time at all: what it would give is made up.
A GPU that could compute more than this would wait.
"""

import json
from dataclasses import replace
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from tfbatch.batches import Feeds
from tfbatch.config import RunConfig
from tfbatch.execution import output_of
from tfbatch.flow import work
from tfbatch.host.machine import available_threads
from tfbatch.host.process import limit_threads
from tfbatch.host.stop import Stop
from tfbatch.job import make_job
from tfbatch.reporting.tally import Tally, summary
from tfbatch.results import Floats
from tfbatch.session import Device, Session

from benchmarks.data import input_of
from benchmarks.models import make_bundle, make_checkpoint
from benchmarks.workloads import BY_NAME, HERE

ROWS = {"reviews": 200_000, "mixed": 50_000, "documents": 20_000, "photos500": 6_000, "photos12mp": 80}


class Instant:
    """A session that has its outputs, (B, labels), at once."""

    def __init__(self, labels: int) -> None:
        self._labels = labels

    def run(self, feeds: Feeds) -> Floats:
        rows = len(next(iter(feeds.values())))
        return np.broadcast_to(np.arange(self._labels, dtype=np.float32), (rows, self._labels))


def measure(name: str, rows: int) -> dict[str, Any]:
    """One job, with the windows and the batches of a GPU."""
    workload = BY_NAME[name]
    make_checkpoint(workload.model)
    make_bundle(workload.model)
    output = HERE / "outputs" / "host"
    config = RunConfig(
        inputs=(str(input_of(workload, rows)),), bundle=workload.model.bundle, output=str(output), overwrite=True,
        device="cpu",
    )  # fmt: skip
    job = replace(make_job(config), devices=[Device(runtime="cuda")])
    limit_threads(job.device.tokenizing(available_threads()))
    labels = len(job.bundle.manifest.labels)
    tally, stop = Tally(), Stop()

    def opened(*_: Any) -> Session:
        return Instant(labels)

    files = output_of(job, stop)
    files.open(overwrite=True)
    try:
        for finished, record in work(job, [job.plan.parts], files.append, tally, stop, opened):
            if record is not None:
                tally.records[finished.window.part] = record
        return summary(job, "done", tally)
    finally:
        files.close()


@click.command()
@click.option("--workloads", default=",".join(ROWS), show_default=True, help="Some of them, with commas between.")
def main(workloads: str) -> None:
    """Measure how many rows a second this machine can feed a model."""
    table = Table("rows", "a second", "a second and core", "of the time, the slowest stage")
    found = {name: measure(name, ROWS[name]) for name in workloads.split(",")}
    for name, result in found.items():
        rate = result["rows_per_second"]
        slowest = f"{result['bottleneck']}, {result['bottleneck_share']:.0%}"
        table.add_row(name, f"{rate:,.0f}", f"{rate / available_threads():,.0f}", slowest)
    Console(stderr=True).print(table)
    print(json.dumps({name: result["rows_per_second"] for name, result in found.items()}))


if __name__ == "__main__":
    main()
