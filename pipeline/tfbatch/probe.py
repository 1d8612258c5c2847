"""`--batch-tokens auto`: the budget of a batch that is fastest here, tried out on the first rows.

What is found is kept by bundle, device, precision and threads in the user's cache folder, so that
the next run begins at once, and with each part of an output, so that the rest of it is cut in the
same way whatever became of the cache.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from tfbatch.batches import Batch, Indices, Work
from tfbatch.batching.cutting import cut
from tfbatch.host.durable import replace_file
from tfbatch.host.machine import processor_flags
from tfbatch.host.nvidia import find_gpus
from tfbatch.host.stop import Stop
from tfbatch.job import Job
from tfbatch.reporting.tally import Tally
from tfbatch.session import OutOfMemory, Session
from tfbatch.stages import overlap

BUDGETS = (128, 256, 512, 1024)  # tokens; 32 times these on a GPU
BATCHES_A_THREAD = 2  # at least, of each budget: fewer would leave threads idle, and small budgets win
ROUNDS = 2  # the best of each counts: what disturbs a measurement makes it slower


class Budget:
    """The tokens of a batch: as asked for, the device's default, or what an earlier run of this
    output took, for the same bytes, or what is found to be fastest."""

    def __init__(self, job: Job, session: Callable[[], Session], threads: int, tally: Tally, stop: Stop) -> None:
        self._job, self._session, self._threads = job, session, threads
        self._tally, self._stop = tally, stop
        tally.batch_tokens = asked_for(job) or tally.batch_tokens

    def of(self, work: Work) -> int:
        """The budget; where it is to be found out, on the first work that has inputs, if those are enough."""
        if self._tally.batch_tokens is None and len(work.lengths):
            with self._tally.clock.load.working():
                self._tally.batch_tokens = self._find(work)
        return self._tally.batch_tokens or self._job.device.batch_tokens

    def _find(self, work: Work) -> int:
        file, key = cache_file(), fingerprint(self._job, self._threads)
        if isinstance(kept := read_cache(file).get(key), int) and kept > 0:
            return kept
        budgets = [budget * (32 if self._job.device.is_cuda else 1) for budget in BUDGETS]
        budgets = [budget for budget in budgets if self._threads * budget <= int(work.lengths.sum())]
        if len(budgets) < 2:  # of so few rows the fastest is found by chance
            return self._job.device.batch_tokens
        best = self._fastest(work, budgets)
        write_cache(file, key, best)
        return best

    def _fastest(self, work: Work, budgets: list[int]) -> int:
        """The budget that takes least time, by trying all in turn, several times."""
        inputs = sample(work, BATCHES_A_THREAD * self._threads * budgets[-1])
        seconds = dict.fromkeys(budgets, float("inf"))
        for _ in range(ROUNDS):
            for budget in budgets:
                lengths, groups, device = work.lengths[inputs], work.groups[inputs], self._job.device
                batches = cut(lengths, groups, budget, device.length_multiple, self._job.bundle.longest)
                whole = [Batch(inputs=inputs[batch.inputs], length=batch.length) for batch in batches]
                seconds[budget] = min(seconds[budget], self._time(work, whole))
        return min(seconds, key=seconds.__getitem__)

    def _time(self, work: Work, batches: list[Batch]) -> float:
        """Seconds that batches take on all threads; infinity where one does not fit the memory."""

        def compute(batch: Batch) -> None:
            self._stop.beat()
            self._session().run(work.collate(batch.inputs, batch.length))

        started = time.perf_counter()
        try:
            for _ in overlap(compute, batches, workers=self._threads, ahead=2 * self._threads):
                pass
        except (OutOfMemory, MemoryError):
            return float("inf")
        return time.perf_counter() - started


def asked_for(job: Job) -> int | None:
    """The tokens of a batch that were asked for, or the device's; None where they are to be found out."""
    if job.config.batch_tokens == "auto":
        return None
    return job.config.batch_tokens or job.device.batch_tokens


def sample(work: Work, tokens: int) -> Indices:
    """Inputs spread evenly over the window that come to so many tokens, or all of them."""
    count = len(work.lengths) * tokens // max(1, int(work.lengths.sum()))
    places = np.linspace(0, len(work.lengths) - 1, min(len(work.lengths), max(1, count))).astype(np.int64)
    chosen: Indices = work.lengths.argsort(kind="stable")[places]
    return chosen


def cache_file() -> Path | None:
    """Where what was found out about this machine is kept; None where there is no home folder."""
    try:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(folder) / "tfbatch" / "batch_tokens.json"


def fingerprint(job: Job, threads: int) -> str:
    """What a budget was found for: a home folder may be that of several machines."""
    gpus = [gpu.name for gpu in find_gpus()] if job.device.is_cuda else []
    machine = [platform.machine(), sorted(processor_flags()), gpus, job.device.name, job.device.memory]
    facts = [job.facts, threads, job.config.max_length, machine]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_cache(file: Path | None) -> dict[str, object]:
    """All that was found earlier; nothing where the file cannot be read."""
    try:
        content = json.loads(file.read_bytes()) if file else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(file: Path | None, key: str, tokens: int) -> None:
    """Keep what was found; a cache that cannot be written costs the next run a probe."""
    if file is None:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps({**read_cache(file), key: tokens}, indent=2), spool=file.parent)
