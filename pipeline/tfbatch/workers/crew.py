"""Several processes that share a job's parts, one a GPU or several on a processor.

Parts are given to whoever asks, see `lots`. This process does none itself: it hands them out, records
those that have got their names, counts, and hears whoever wants the job to end. The parts of a worker
that dies go to the others, and so do those of one that gets nothing done for as long as
`--stall-timeout` says, which is ended; a part that has cost two workers ends the job. What the workers
write is harmless as long as it is not recorded.
"""

from tfbatch.errors import TryAgain, of_exit_code
from tfbatch.host.child import ending
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
from tfbatch.workers.messages import Complete, Failed, Free, Leave, Lot, More, Scored
from tfbatch.workers.staff import Staff
from tfbatch.workers.worker_process import Worker


class Crew:
    """The workers of a job; they begin with `work`, and none is left after `end`."""

    def __init__(self, job: Job, pending: list[Part], output: Output, tally: Tally, watcher: Watcher) -> None:
        self._job = job
        tally.workers = min(job.workers, len(pending))
        self._lots = Lots(pending, tally.workers)
        self._staff = Staff(job, tally.workers, output)
        self._output = output
        self._tally = tally
        tally.batch_tokens = asked_for(job) or tally.batch_tokens
        self._watcher = watcher
        self._drawn = FirstRows(job.config.contact_sheet or 0)
        self._tallies: dict[Worker, Tally] = {}

    def work(self, stop: Stop) -> None:
        """Have all parts done.

        Raises:
            TfbatchError: a worker's, a stop that was asked for, or too many workers died.
        """
        self._start_more()
        while self._staff.members:
            for worker, message in self._staff.hear():
                if message is None:
                    stop.check()  # which may be why
                    self._bury(worker)
                else:
                    self._hear(worker, message)
            stop.beat()  # how long workers may stand still is looked at here
            if (limit := self._job.config.stall_timeout) is not None:
                self._staff.end_silent(limit)
            self._call_the_free()

    def draw(self, sheet: ContactSheet) -> None:
        """Put the rows of its parts onto a contact sheet, in their order."""
        sheet.rows += self._drawn.rows()

    def end(self) -> None:
        """Let all workers go, wherever they are."""
        for worker in self._staff.end():
            self._add_tally(worker)

    def _start_more(self) -> None:
        """Start those that are missing; but one at a time where it is to find out first how large batches are."""
        size, tokens = self._staff.size, self._tally.batch_tokens
        self._staff.start(size if tokens is not None else min(size, self._tally.lost_workers + 1), tokens)

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
        free = [worker for worker in self._staff.members if worker.is_free]
        if self._lots:
            free = free[: len(self._lots)]
        elif any(worker.parts for worker in self._staff.members):  # which may die yet
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
        if deadly or (self._lots and not self._staff.members):
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
        warn(text, log_format=self._job.config.log_format)

    def _where(self, part: Part | None) -> str:
        """What a worker that is the last one to die died of, as far as is known."""
        if part is None:
            return "the last there was"
        source = self._job.plan.files[part.file].source
        return f"as another did before it, at rows {part.first:,} to {part.stop - 1:,} of {source}"

    def _dismiss(self, worker: Worker) -> int:
        """Let one go that has nothing more to say; its exit status."""
        status = self._staff.dismiss(worker)
        self._add_tally(worker)
        return status

    def _add_tally(self, worker: Worker) -> None:
        """Count what one has done; of one that died, up to the last part that was recorded."""
        if worker in self._tallies:
            self._tally.add(self._tallies.pop(worker), self._staff.size)
