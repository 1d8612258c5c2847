"""Several processes that share a job's parts, one a GPU or several on a processor.

A part is given to whoever asks for one, the largest first, so that none is long at work when the
others are done. This process does no part itself: it hands them out, records those that have got their
names, counts, and hears whoever wants the job to end. The parts of a worker that dies go to the
others; a part that has cost LIVES workers ends the job.

What the workers write is harmless as long as it is not recorded, and they end with this process,
however that ends: each waits for the end of a pipe that this one alone can write to.
"""

import os
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from subprocess import Popen, TimeoutExpired
from typing import Any

from tfbatch.child import ending, start_child
from tfbatch.contact_sheet import ContactSheet
from tfbatch.errors import TryAgain, of_exit_code
from tfbatch.job import Job
from tfbatch.machine import available_threads
from tfbatch.messages import Complete, Failed, Free, More, Orders, Scored
from tfbatch.output import Output
from tfbatch.plan import Part
from tfbatch.progress import Watcher, warn
from tfbatch.stop import Stop
from tfbatch.tally import Tally, check_errors

SEARCHED = 10  # times as many rows as a contact sheet has, should some have errors
LIVES = 2  # workers that a part may cost
SECONDS_BETWEEN_LOOKS = 0.5  # at whether a stop was asked for
SECONDS_TO_END = 5.0  # that a process has for its last steps


@dataclass(eq=False)
class Worker:
    """One of them: the parts it has, and how much of those is scored."""

    name: str
    device: str
    process: Popen[bytes]
    pipe: "Connection[Any, Any]"
    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    errors: int = 0
    is_free: bool = False


class Crew:
    """The workers of a job; they begin with `work`, and none is left after `end`."""

    def __init__(self, job: Job, pending: list[Part], output: Output, tally: Tally, watcher: Watcher) -> None:
        self._job = job
        self._queue = deque(sorted(pending, key=lambda part: -part.rows))
        self._size = tally.workers = min(job.workers, len(pending))
        self._shown = first_parts(pending, SEARCHED * (job.config.contact_sheet or 0))
        self._output = output
        self._tally = tally
        self._watcher = watcher
        self._workers: list[Worker] = []
        self._started = 0
        self._deaths: Counter[Part] = Counter()
        self._drawn: dict[Part, list[Any]] = {}
        self._life, self._ours = os.pipe()

    def work(self, stop: Stop) -> None:
        """Have all parts done.

        Raises:
            TfbatchError: a worker's, a stop that was asked for, or too many workers died.
        """
        self._start_more()
        while self._workers:
            for pipe in wait([worker.pipe for worker in self._workers], SECONDS_BETWEEN_LOOKS):
                worker = next(worker for worker in self._workers if worker.pipe is pipe)
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    stop.check()  # which may be why
                    self._bury(worker)
                else:
                    stop.beat()
                    self._hear(worker, message)
            stop.check()
            self._call_the_free()

    def draw(self, sheet: ContactSheet) -> None:
        """Put the rows of its parts onto a contact sheet, in their order."""
        sheet.rows += [row for part in self._shown for row in self._drawn.get(part, [])]
        del sheet.rows[self._job.config.contact_sheet or 0 :]

    def end(self) -> None:
        """Let all workers go, wherever they are."""
        os.close(self._ours)
        for worker in list(self._workers):
            worker.process.kill()
            self._dismiss(worker)
        os.close(self._life)

    def _start_more(self) -> None:
        """Start those that are missing; but one at a time where it is to find out first how large batches are."""
        is_settled = self._tally.batch_tokens is not None or self._job.config.batch_tokens != "auto"
        while self._started < (self._size if is_settled else min(self._size, self._tally.lost_workers + 1)):
            self._workers.append(self._start(self._started))
            self._started += 1

    def _start(self, number: int) -> Worker:
        job, threads = self._job, self._job.config.threads or available_threads()
        device = job.devices[number % len(job.devices)]
        ours, theirs = Pipe()
        process = start_child("worker", theirs.fileno(), self._life, keep=self._output.descriptors)
        theirs.close()
        worker = Worker(name=f"worker-{number}", device=device.name, process=process, pipe=ours)
        orders = Orders(
            name=worker.name,
            config=replace(job.config, device=device.name, workers=1, threads=max(1, threads // self._size)),
            plan=job.plan,
            fingerprint=job.fingerprint,
            batch_tokens=self._tally.batch_tokens,
            shown=self._shown,
        )
        tell(worker, orders)
        return worker

    def _hear(self, worker: Worker, message: object) -> None:
        match message:
            case Free():
                worker.is_free = True
            case More():
                part = self._queue.popleft() if self._queue else None
                if part is not None:
                    worker.parts.append(part)
                tell(worker, part)
            case Scored():
                self._count(worker, message)
            case Complete():
                self._record(worker, message)
            case Failed():
                raise of_exit_code(message.exit_code, f"{message.reason} ({worker.name} on {worker.device})")
            case Tally():
                self._tally.add(message, self._size)
                self._dismiss(worker)

    def _count(self, worker: Worker, scored: Scored) -> None:
        worker.rows += scored.rows
        worker.errors += scored.errors
        self._tally.rows += scored.rows
        self._tally.errors += scored.errors
        self._tally.first_error = self._tally.first_error or scored.first_error
        self._watcher.advance(scored.rows, scored.errors)
        check_errors(self._job, self._tally)
        if self._tally.batch_tokens is None:
            self._tally.batch_tokens = scored.batch_tokens
            self._start_more()

    def _record(self, worker: Worker, complete: Complete) -> None:
        self._output.record(complete.part, complete.record)
        self._tally.records[complete.part] = complete.record
        self._drawn[complete.part] = complete.drawn
        worker.parts.remove(complete.part)
        worker.rows = worker.errors = 0

    def _call_the_free(self) -> None:
        """Let those that have nothing to do ask for what there is, or go when all is done."""
        free = [worker for worker in self._workers if worker.is_free]
        if self._queue:
            free = free[: len(self._queue)]
        elif any(worker.parts for worker in self._workers):  # which may die yet
            free = []
        for worker in free:
            worker.is_free = False
            tell(worker, bool(self._queue))

    def _bury(self, worker: Worker) -> None:
        """Give the parts of a worker that died back.

        Raises:
            TryAgain: there is nobody left to do them, or one of them has cost enough workers.
        """
        status = self._dismiss(worker)
        self._tally.lost_workers += 1
        self._tally.rows -= worker.rows
        self._tally.errors -= worker.errors
        self._watcher.advance(-worker.rows, -worker.errors)
        self._queue.extendleft(reversed(worker.parts))
        self._deaths.update(worker.parts)
        died = f"{worker.name} on {worker.device} {ending(status)}"
        self._start_more()
        deadly = [part for part in worker.parts if self._deaths[part] >= LIVES]
        if deadly or (self._queue and not self._workers):
            raise TryAgain(
                f"{died}, {self._where(deadly)}; finished parts are kept, the same command goes on from there"
            )
        config = self._job.config
        warn(f"{died}; the others take over what it had", quiet=config.quiet, log_format=config.log_format)

    def _where(self, deadly: list[Part]) -> str:
        """What a worker that is the last one to die died of, as far as is known."""
        if not deadly:
            return "the last there was"
        part = deadly[0]
        source = self._job.plan.files[part.file].source
        return f"as another did before it, at rows {part.first:,} to {part.stop - 1:,} of {source}"

    def _dismiss(self, worker: Worker) -> int:
        """Wait for the end of a process that has nothing more to say; its exit status."""
        worker.pipe.close()
        try:
            status = worker.process.wait(SECONDS_TO_END)
        except TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        self._workers.remove(worker)
        self._output.clear_spool(worker.name)
        return status


def tell(worker: Worker, message: object) -> None:
    """Send a message; one that is gone is found to be when it is listened to."""
    with suppress(OSError):
        worker.pipe.send(message)


def first_parts(parts: list[Part], rows: int) -> list[Part]:
    """As many of the first parts as hold so many rows."""
    found: list[Part] = []
    for part in parts:
        if sum(each.rows for each in found) >= rows:
            break
        found.append(part)
    return found
