"""Several processes that share a job's parts, one a GPU or several on a processor.

Parts are given to whoever asks, see `lots`. This process does none itself: it hands them out, records
those that have got their names, counts, and hears whoever wants the job to end. The parts of a worker
that dies go to the others, and so do those of one that gets nothing done for as long as
`--stall-timeout` says, which is ended; a part that has cost LIVES workers ends the job.

What the workers write is harmless as long as it is not recorded, and they end with this process,
however that ends: each waits for the end of a pipe that this one alone can write to.
"""

import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from subprocess import Popen, TimeoutExpired
from typing import IO, Any

from tfbatch.child import ending, start_child
from tfbatch.contact_sheet import ContactSheet
from tfbatch.errors import TryAgain, of_exit_code
from tfbatch.job import Job
from tfbatch.lots import first_parts, largest_first, next_lot
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
SECONDS_TO_SAY = 1.0  # that one has to say where it stands


@dataclass(eq=False)
class Worker:
    """One of them: the parts it has, and how much of those is scored.

    It writes to `stacks` where it stands when it crashes or is asked, which once it is over is in
    `stood`; `heard` is when it last said anything or was given something to do, by the monotonic clock.
    """

    name: str
    device: str
    process: Popen[bytes]
    pipe: "Connection[Any, Any]"
    stacks: IO[bytes]
    heard: float = field(default_factory=time.monotonic)
    is_silent: bool = False
    stood: str = ""
    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    errors: int = 0
    is_free: bool = False


class Crew:
    """The workers of a job; they begin with `work`, and none is left after `end`."""

    def __init__(self, job: Job, pending: list[Part], output: Output, tally: Tally, watcher: Watcher) -> None:
        self._job = job
        self._queue = largest_first(pending)
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
                    worker.heard, worker.is_silent = time.monotonic(), False
                    self._hear(worker, message)
            stop.beat()  # how long workers may stand still is looked at here
            self._end_the_silent()
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
        started = []
        while self._started < (self._size if is_settled else min(self._size, self._tally.lost_workers + 1)):
            started.append(self._start(self._started))
            self._started += 1
        self._workers += started
        for worker in started:  # all at once: they read a long plan when they have come up
            tell(worker, self._orders(worker))

    def _start(self, number: int) -> Worker:
        device = self._job.devices[number % len(self._job.devices)]
        ours, theirs = Pipe()
        stacks = tempfile.TemporaryFile()  # noqa: SIM115 -- closed when the process is over
        process = start_child("worker", theirs.fileno(), self._life, stacks.fileno(), keep=self._output.descriptors)
        theirs.close()
        return Worker(name=f"worker-{number}", device=device.name, process=process, pipe=ours, stacks=stacks)

    def _orders(self, worker: Worker) -> Orders:
        job, threads = self._job, self._job.config.threads or available_threads()
        return Orders(
            name=worker.name,
            config=replace(job.config, device=worker.device, workers=1, threads=max(1, threads // self._size)),
            plan=job.plan,
            fingerprint=job.fingerprint,
            batch_tokens=self._tally.batch_tokens,
            shown=self._shown,
        )

    def _hear(self, worker: Worker, message: object) -> None:
        match message:
            case Free():
                worker.is_free = True
            case More():
                lot = next_lot(self._queue, self._size, self._deaths)
                worker.parts += lot
                tell(worker, lot)
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
            worker.heard = time.monotonic()
            tell(worker, bool(self._queue))

    def _end_the_silent(self) -> None:
        """Have those that get nothing done say where they stand, and then end them.

        Raises:
            TryAgain: one stands where nothing ends it.
        """
        limit, now = self._job.config.stall_timeout, time.monotonic()
        for worker in self._workers:
            if limit is None or worker.is_free or now - worker.heard <= limit:
                continue
            over = now - worker.heard - limit
            if not worker.is_silent:
                worker.is_silent = True
                worker.process.send_signal(signal.SIGUSR1)
            elif over > SECONDS_TO_SAY + SECONDS_TO_END:
                raise TryAgain(
                    f"{worker.name} on {worker.device} got nothing done in {limit:g} s (--stall-timeout) and cannot be "
                    f"ended: a disk or driver does not answer; finished parts are kept, the same command goes on from "
                    f"there"
                )
            elif over > SECONDS_TO_SAY:
                worker.process.kill()

    def _bury(self, worker: Worker) -> None:
        """Give the parts of a worker that died back.

        Raises:
            TryAgain: there is nobody left to do them, or one of them has cost enough workers.
        """
        died = f"{worker.name} on {worker.device} {self._end_of(worker)}"
        self._tally.lost_workers += 1
        self._tally.rows -= worker.rows
        self._tally.errors -= worker.errors
        self._watcher.advance(-worker.rows, -worker.errors)
        self._queue.extendleft(reversed(worker.parts))
        self._deaths.update(worker.parts)
        self._start_more()
        deadly = [part for part in worker.parts if self._deaths[part] >= LIVES]
        if deadly or (self._queue and not self._workers):
            raise TryAgain(
                f"{died}, {self._where(deadly)}; finished parts are kept, the same command goes on from there"
            )
        self._warn(f"{died}; the others take over what it had")

    def _end_of(self, worker: Worker) -> str:
        """How a worker ended; where it stood is said before."""
        status = self._dismiss(worker)
        if worker.stood:
            self._warn(f"where {worker.name} stood:\n{worker.stood}")
        if worker.is_silent:
            return f"got nothing done in {self._job.config.stall_timeout:g} s (--stall-timeout) and was ended"
        return ending(status)

    def _warn(self, text: str) -> None:
        warn(text, quiet=self._job.config.quiet, log_format=self._job.config.log_format)

    def _where(self, deadly: list[Part]) -> str:
        """What a worker that is the last one to die died of, as far as is known."""
        if not deadly:
            return "the last there was"
        part = deadly[0]
        source = self._job.plan.files[part.file].source
        return f"as another did before it, at rows {part.first:,} to {part.stop - 1:,} of {source}"

    def _dismiss(self, worker: Worker) -> int:
        """Wait for the end of a process that has nothing more to say; its exit status.

        One that nothing ends is left behind: nobody records what it may write yet.
        """
        worker.pipe.close()
        status = -signal.SIGKILL
        try:
            status = worker.process.wait(SECONDS_TO_END)
        except TimeoutExpired:
            worker.process.kill()
            with suppress(TimeoutExpired):
                status = worker.process.wait(SECONDS_TO_END)
        with worker.stacks as stacks:
            stacks.seek(0)
            worker.stood = stacks.read().decode(errors="replace").strip()
        self._workers.remove(worker)
        self._output.clear_spool(worker.name)
        return status


def tell(worker: Worker, message: object) -> None:
    """Send a message; one that is gone is found to be when it is listened to."""
    with suppress(OSError):
        worker.pipe.send(message)
