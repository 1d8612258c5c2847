"""What is counted on a job's way, when that is too many errors, and what is said at the end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tfbatch.batches import Counts
from tfbatch.clock import Clock
from tfbatch.config import error_limit
from tfbatch.errors import TooManyRowErrors
from tfbatch.host.machine import peak_memory
from tfbatch.job import Job
from tfbatch.outputs.claim import Record
from tfbatch.pictures.decoders import DECODERS
from tfbatch.plan import Part
from tfbatch.runtimes.device import faster_choice, is_proved
from tfbatch.scoring import Finished


@dataclass
class Tally:
    """What is counted on the way: rows scored now, all errors, the first one met now and where, and
    tokens, of which padding makes more than there really are; rows that `repeated` another of their
    window and were not computed again; rows `truncated` to the model's length; the tokens of a
    batch, once they are settled; where the time went; the records of finished parts; of processes that
    worked for this one the most memory they held, how many there were and how many died."""

    rows: int = 0
    errors: int = 0
    first_error: tuple[Part, int, str] | None = None
    real_tokens: int = 0
    computed_tokens: int = 0
    repeated: int = 0
    truncated: int = 0
    batch_tokens: int | None = None
    clock: Clock = field(default_factory=Clock)
    records: dict[Part, Record] = field(default_factory=dict)
    peak_memory: int = 0
    workers: int = 1
    lost_workers: int = 0
    started: float = field(default_factory=time.monotonic)

    def begin(self, records: dict[Part, Record]) -> None:
        """Take over what an earlier run finished."""
        self.records = records
        self.errors = count_errors(records)
        budgets = (record.get("batch_tokens") for record in records.values())
        self.batch_tokens = next(filter(None, budgets), None)

    def count(self, finished: Finished) -> None:
        """Add a window that is written."""
        self.rows += finished.table.num_rows
        self.errors += len(finished.errors)
        self.add_counts(finished.counts)
        if finished.errors and self.first_error is None:
            row = min(finished.errors)
            self.first_error = (finished.window.part, finished.window.first + row, finished.errors[row])

    def add_counts(self, counts: "Counts | Tally") -> None:
        """Add what windows come to."""
        self.real_tokens += counts.real_tokens
        self.computed_tokens += counts.computed_tokens
        self.repeated += counts.repeated
        self.truncated += counts.truncated

    def add(self, other: "Tally", workers: int) -> None:
        """Add the work, time and memory of one of so many processes; its rows and errors are counted already."""
        self.add_counts(other)
        self.peak_memory += other.peak_memory
        self.clock.add(other.clock, workers)


def check_errors(job: Job, tally: Tally) -> None:
    """Fail the job as soon as more rows are bad than allowed."""
    limit = error_limit(job.config.max_errors, job.plan.rows)
    if tally.errors > limit:
        raise TooManyRowErrors(
            f"{tally.errors:,} rows have errors, --max-errors {job.config.max_errors} allows {limit:,}; "
            f"{first_error(job, tally)}"
        )


def first_error(job: Job, tally: Tally) -> str:
    """Where bad rows are told of; the first that this run met, if it met one."""
    if tally.first_error is None:
        return f"the error column of the parts in {job.output} says which and why"
    part, row, reason = tally.first_error
    return f"the first met now is row {row:,} (from 0) of {job.plan.files[part.file].source}, {reason}"


def count_errors(records: Mapping[Part, Record]) -> int:
    """Rows with an error in finished parts."""
    return sum(record["errors"] for record in records.values())


def so_far(tally: Tally) -> Record:
    """How far a run came, however it ended; `rows_per_second` is of the rows this process scored."""
    seconds = time.monotonic() - tally.started
    return {
        "rows": sum(record["rows"] for record in tally.records.values()),
        "errors": count_errors(tally.records),
        "parts": len(tally.records),
        "seconds": round(seconds, 3),
        "rows_per_second": round(tally.rows / seconds, 1),
        "peak_memory_bytes": peak_memory() + DECODERS.peak_memory() + tally.peak_memory,
    }


def summary(job: Job, status: str, tally: Tally) -> Record:
    """What a scheduler reads of a run that ended well."""
    shares = tally.clock.shares(time.monotonic() - tally.started)
    bottleneck = max(shares, key=shares.__getitem__) if any(shares.values()) else None
    faster, graphs = None, job.bundle.manifest.graphs
    if bottleneck == "compute":
        faster = faster_choice(job.device, job.precision, graphs)
    return {
        "status": status,
        **so_far(tally),
        "output": job.output,
        "bundle": str(job.bundle.path),
        "task": job.bundle.manifest.task,
        "device": job.device_names,
        "workers": tally.workers,
        "lost_workers": tally.lost_workers,
        "precision": job.precision,
        "padding_ratio": round(tally.computed_tokens / tally.real_tokens, 4) if tally.real_tokens else None,
        "repeated_rows": tally.repeated,
        "truncated_rows": tally.truncated,
        "busy_seconds": tally.clock.busy(),
        "waited_seconds": tally.clock.waited(),
        "bottleneck": bottleneck,
        "bottleneck_share": max(shares.values()),
        "batch_tokens": tally.batch_tokens,
        "verified": job.bundle.is_verified,
        "proved": is_proved(job.device, job.precision, graphs) if job.bundle.is_verified else None,
        "faster": faster,
    }
