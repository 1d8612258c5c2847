"""Several processes that share a job's parts, one a GPU or several on a processor.

Parts are given to whoever asks, see `lots`. This process does none itself: it hands them out, records
those that have got their names, counts, and hears whoever wants the job to end. The parts of a worker
that dies go to the others, and so do those of one that gets nothing done for as long as
`--stall-timeout` says, which is ended; a part that has cost two workers ends the job.

What the workers write is harmless as long as it is not recorded, and they end with this process,
however that ends: each waits for the end of a pipe that this one alone can write to.
"""

import os
from dataclasses import replace
from multiprocessing.connection import wait

from tfbatch.errors import TryAgain, of_exit_code
from tfbatch.host.child import ending
from tfbatch.host.machine import available_threads
from tfbatch.host.stop import Stop
from tfbatch.job import Job
from tfbatch.outputs.output import Output
from tfbatch.pictures.contact_sheet import ContactSheet
from tfbatch.plan import Part
from tfbatch.probe import asked_for
from tfbatch.reporting.progress import Watcher, warn
from tfbatch.reporting.sheet_rows import FirstRows
from tfbatch.reporting.tally import Tally, check_errors
from tfbatch.workers.lots import Lots
from tfbatch.workers.messages import Complete, Failed, Free, Leave, Lot, More, Orders, Scored
from tfbatch.workers.worker_process import Worker, start_worker

SECONDS_BETWEEN_LOOKS = 0.5  # at whether a stop was asked for


class Crew:
    """The workers of a job; they begin with `work`, and none is left after `end`."""

    def __init__(self, job: Job, pending: list[Part], output: Output, tally: Tally, watcher: Watcher) -> None:
        self._job = job
        self._size = tally.workers = min(job.workers, len(pending))
        self._lots = Lots(pending, self._size)
        self._output = output
        self._tally = tally
        tally.batch_tokens = asked_for(job) or tally.batch_tokens
        self._watcher = watcher
        self._workers: list[Worker] = []
        self._started = 0
        self._drawn = FirstRows(job.config.contact_sheet or 0)
        self._tallies: dict[Worker, Tally] = {}
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
                    message = worker.hear()
                except (EOFError, OSError):
                    stop.check()  # which may be why
                    self._bury(worker)
                else:
                    self._hear(worker, message)
            stop.beat()  # how long workers may stand still is looked at here
            if (limit := self._job.config.stall_timeout) is not None:
                for worker in self._workers:
                    worker.end_if_silent(limit)
            self._call_the_free()

    def draw(self, sheet: ContactSheet) -> None:
        """Put the rows of its parts onto a contact sheet, in their order."""
        sheet.rows += self._drawn.rows()

    def end(self) -> None:
        """Let all workers go, wherever they are."""
        os.close(self._ours)
        for worker in list(self._workers):
            worker.process.kill()
            self._dismiss(worker)
        os.close(self._life)

    def _start_more(self) -> None:
        """Start those that are missing; but one at a time where it is to find out first how large batches are."""
        is_settled = self._tally.batch_tokens is not None
        started = []
        while self._started < (self._size if is_settled else min(self._size, self._tally.lost_workers + 1)):
            started.append(self._start(self._started))
            self._started += 1
        self._workers += started
        for worker in started:  # all at once: they read a long plan when they have come up
            worker.tell(self._orders(worker))

    def _start(self, number: int) -> Worker:
        device = self._job.devices[number % len(self._job.devices)]
        return start_worker(f"worker-{number}", device.name, self._life, self._output.descriptors)

    def _orders(self, worker: Worker) -> Orders:
        job, threads = self._job, self._job.config.threads or available_threads()
        return Orders(
            spool=self._output.spool_of(worker.name),
            config=replace(job.config, device=worker.device, workers=1, threads=max(1, threads // self._size)),
            plan=job.plan,
            fingerprint=job.fingerprint,
            batch_tokens=self._tally.batch_tokens,
        )

    def _hear(self, worker: Worker, message: object) -> None:
        match message:
            case Free():
                worker.is_free = True
            case More():
                lot = self._lots.take(worker.parts)
                worker.parts += lot
                worker.tell(Lot(parts=lot, shown=[part for part in lot if self._drawn.want(part)]))
            case Leave():
                self._output.ensure_held()  # as long as it is, and this process hears, what a worker does is its own
                worker.tell(True)
            case Scored():
                self._count(worker, message)
            case Complete():
                self._record(worker, message)
            case Failed():
                raise of_exit_code(message.exit_code, f"{message.reason} ({worker.name} on {worker.device})")
            case Tally():
                self._tallies[worker] = message
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
        self._drawn.keep(complete.part, complete.drawn)
        self._tallies[worker] = complete.tally
        worker.parts.remove(complete.part)
        worker.rows = worker.errors = 0

    def _call_the_free(self) -> None:
        """Let those that have nothing to do ask for what there is, or go when all is done."""
        free = [worker for worker in self._workers if worker.is_free]
        if self._lots:
            free = free[: len(self._lots)]
        elif any(worker.parts for worker in self._workers):  # which may die yet
            free = []
        for worker in free:
            worker.is_free = False
            worker.tell(bool(self._lots))

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
        deadly = self._lots.take_back(worker.parts)
        self._start_more()
        if deadly or (self._lots and not self._workers):
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

    def _where(self, part: Part | None) -> str:
        """What a worker that is the last one to die died of, as far as is known."""
        if part is None:
            return "the last there was"
        source = self._job.plan.files[part.file].source
        return f"as another did before it, at rows {part.first:,} to {part.stop - 1:,} of {source}"

    def _dismiss(self, worker: Worker) -> int:
        """Let one go that has nothing more to say, and what it left unfinished; its exit status."""
        status = worker.end()
        self._workers.remove(worker)
        self._output.clear_spool(worker.name)
        if worker in self._tallies:  # of one that died, up to the last part that was recorded
            self._tally.add(self._tallies.pop(worker), self._size)
        return status
