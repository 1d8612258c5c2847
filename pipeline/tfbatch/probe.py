"""`--batch-tokens auto`: the budget of a batch that is fastest here, tried out on the first rows.

What is found is kept by bundle, device, precision and threads in the user's cache folder, so that
the next run begins at once and cuts its batches in the same way.
"""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

from tfbatch.batches import Batch, Indices, Work, cut
from tfbatch.job import Job
from tfbatch.session import OutOfMemory, Session
from tfbatch.stages import overlap
from tfbatch.writer import replace_file

BUDGETS = (128, 256, 512, 1024, 2048)  # tokens; sixteen times these on a GPU
TRIED = 4096  # tokens that each budget is tried on
ROUNDS = 2  # the best of each counts: what disturbs a measurement makes it slower


class Budget:
    """The tokens of a batch: as asked for, the device's default, or found out."""

    def __init__(self, job: Job, session: Session, threads: int) -> None:
        self._job, self._session, self._threads = job, session, threads
        asked = job.config.batch_tokens
        self._tokens = None if asked == "auto" else asked or job.device.batch_tokens

    def of(self, work: Work) -> int:
        """The budget; where it is to be found out, on the first work that has inputs."""
        if self._tokens is None and len(work.lengths):
            self._tokens = self._find(work)
        return self._tokens or self._job.device.batch_tokens

    def _find(self, work: Work) -> int:
        file, key = cache_folder() / "batch_tokens.json", fingerprint(self._job, self._threads)
        found = read_cache(file)
        if isinstance(kept := found.get(key), int) and kept > 0:
            return kept
        best = fastest(self._job, self._session, work, self._threads)
        write_cache(file, {**found, key: best})
        return best


def fastest(job: Job, session: Session, work: Work, threads: int) -> int:
    """The budget that takes least time, by trying all of them in turn, several times."""
    scale = 16 if job.device.is_cuda else 1
    inputs = sample(work, scale * TRIED)
    seconds = {scale * budget: float("inf") for budget in BUDGETS}
    for _ in range(ROUNDS):
        for budget in seconds:
            batches = cut(work.lengths[inputs], work.groups[inputs], budget, job.device.length_multiple)
            whole = [Batch(inputs=inputs[batch.inputs], length=batch.length) for batch in batches]
            seconds[budget] = min(seconds[budget], time_batches(session, work, whole, threads))
    return min(seconds, key=seconds.__getitem__)


def sample(work: Work, tokens: int) -> Indices:
    """Inputs spread evenly over the window that come to so many tokens, or all of them."""
    count = len(work.lengths) * tokens // max(1, int(work.lengths.sum()))
    places = np.linspace(0, len(work.lengths) - 1, min(len(work.lengths), max(1, count))).astype(np.int64)
    chosen: Indices = work.lengths.argsort(kind="stable")[places]
    return chosen


def time_batches(session: Session, work: Work, batches: list[Batch], threads: int) -> float:
    """Seconds that batches take on so many threads; infinity where one does not fit the memory."""

    def compute(batch: Batch) -> None:
        session.run(work.collate(batch.inputs, batch.length))

    started = time.perf_counter()
    try:
        for _ in overlap(compute, batches, workers=threads, ahead=2 * threads):
            pass
    except (OutOfMemory, MemoryError):
        return float("inf")
    return time.perf_counter() - started


def cache_folder() -> Path:
    """Where what was found out about this machine is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfbatch"


def fingerprint(job: Job, threads: int) -> str:
    """What a budget was found for."""
    facts = [job.bundle.identity, job.device.name, job.precision, threads, job.config.max_length]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_cache(file: Path) -> dict[str, object]:
    """All that was found earlier; nothing where the file cannot be read."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(file: Path, found: dict[str, object]) -> None:
    """Keep what was found; a cache that cannot be written costs the next run a probe."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(found, indent=2), spool=file.parent)
    except OSError:
        return
