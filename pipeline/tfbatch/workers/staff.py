"""The processes that do a job's parts: who begins and with which orders, who speaks, who goes.

They end with this process, however that ends: each waits for the end of a pipe that this one alone can write to.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import wait

from tfbatch.host.machine import available_threads
from tfbatch.job import Job
from tfbatch.outputs.output import Output
from tfbatch.workers.messages import Orders
from tfbatch.workers.worker_process import Worker, start_worker

SECONDS_BETWEEN_LOOKS = 0.5  # at whether a stop was asked for


class Staff:
    """At most `size` workers of a job at once; none is left after `end`."""

    def __init__(self, job: Job, size: int, output: Output) -> None:
        self.size = size
        self.members: list[Worker] = []
        self._started = 0
        self._job = job
        self._output = output
        self._life, self._ours = os.pipe()

    def start(self, count: int, batch_tokens: int | None) -> None:
        """Start those that are missing to `count`, the ones that went counted too."""
        started = []
        while self._started < count:
            started.append(self._start(self._started))
            self._started += 1
        self.members += started
        for worker in started:  # all at once: they read a long plan when they have come up
            worker.tell(self._orders(worker, batch_tokens))

    def _start(self, number: int) -> Worker:
        device = self._job.devices[number % len(self._job.devices)]
        return start_worker(f"worker-{number}", device.name, self._life, self._output.descriptors)

    def _orders(self, worker: Worker, batch_tokens: int | None) -> Orders:
        job, threads = self._job, self._job.config.threads or available_threads()
        return Orders(
            spool=self._output.spool_of(worker.name),
            config=replace(job.config, device=worker.device, workers=1, threads=max(1, threads // self.size)),
            plan=job.plan,
            fingerprint=job.fingerprint,
            batch_tokens=batch_tokens,
        )

    def hear(self) -> Iterator[tuple[Worker, object]]:
        """The next message of each that speaks; None of one that is gone."""
        for pipe in wait([worker.pipe for worker in self.members], SECONDS_BETWEEN_LOOKS):
            worker = next(worker for worker in self.members if worker.pipe is pipe)
            try:
                message = worker.hear()
            except (EOFError, OSError):
                message = None
            yield worker, message

    def end_silent(self, limit: float) -> None:
        """End those that got nothing done for so many seconds."""
        for worker in self.members:
            worker.end_if_silent(limit)

    def dismiss(self, worker: Worker) -> int:
        """Let one go that has nothing more to say, and what it left unfinished; its exit status."""
        status = worker.end()
        self.members.remove(worker)
        self._output.clear_spool(worker.name)
        return status

    def end(self) -> list[Worker]:
        """Let all go, wherever they are; who they were."""
        gone = list(self.members)
        os.close(self._ours)
        for worker in gone:
            worker.process.kill()
            self.dismiss(worker)
        os.close(self._life)
        return gone
