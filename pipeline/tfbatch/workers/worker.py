"""A process that does parts of another one's job: see `messages`."""

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from tfbatch.errors import BadConfiguration, TryAgain
from tfbatch.flow import session_of, work
from tfbatch.host.machine import peak_memory
from tfbatch.host.process import leave, settle_heap
from tfbatch.host.stop import Stop
from tfbatch.job import Job, begin_job
from tfbatch.outputs.drafts import Drafts, failing_as_output
from tfbatch.outputs.output import open_storage
from tfbatch.pictures.contact_sheet import ContactSheet
from tfbatch.pictures.decoders import DECODERS
from tfbatch.plan import Part
from tfbatch.reporting.report import what_failed
from tfbatch.reporting.sheet_rows import show
from tfbatch.reporting.tally import Tally
from tfbatch.session import Session
from tfbatch.stages import every, start_thread
from tfbatch.workers.messages import Alive, Complete, Failed, Free, Leave, More, Orders, Scored

SECONDS_BETWEEN_SIGNS = 1.0


class Link:
    """The way to the job's process; threads that wait for an answer do so one after the other."""

    def __init__(self, pipe: "Connection[Any, Any]", stop: Stop) -> None:
        self._pipe = pipe
        self._stop = stop
        self._sending, self._asking = Lock(), Lock()
        self._heard = stop.last_beat

    def send(self, message: object) -> None:
        with self._sending:
            self._pipe.send(message)

    def ask(self, message: object) -> Any:
        with self._asking:
            self.send(message)
            return self._pipe.recv()

    def ask_leave(self) -> None:
        """Wait until the job's process has looked whether it holds the output; where it does not, it ends this."""
        self.ask(Leave())

    def say_alive(self) -> None:
        """Say so, if anything was done since the last time."""
        if self._stop.last_beat > self._heard:
            self._heard = self._stop.last_beat
            with suppress(OSError):  # the job has gone, and so will this
                self.send(Alive())


def main() -> None:
    """Work for the process that has the other ends of these open files: a pipe, one that tells nothing
    but that it is gone, and one for where this process stands, should it crash or be asked."""
    settle_heap()  # before there is a second thread
    descriptor, life, stacks = map(int, sys.argv[1:4])
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks)

    def end_with_the_job() -> None:
        os.read(life, 1)
        os._exit(TryAgain.exit_code)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # is for the job, which lets this process go
    start_thread(end_with_the_job)
    stop = Stop()
    pipe: Connection[Any, Any] = Connection(descriptor)
    link = Link(pipe, stop)
    try:
        orders = pipe.recv()
        every(SECONDS_BETWEEN_SIGNS, link.say_alive)
        tally = Tally(batch_tokens=orders.batch_tokens)
        do_share(settle(orders), orders, link, tally, stop)
        link.send(up_to_now(tally))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the job is told
        exit_code, reason = what_failed(error)
        with suppress(OSError):
            link.send(Failed(exit_code=exit_code, reason=reason))
    leave(0)


def up_to_now(tally: Tally) -> Tally:
    """What this process has done and held."""
    tally.peak_memory = peak_memory() + DECODERS.peak_memory()
    return tally


def settle(orders: Orders) -> Job:
    """The job as it is here, which must be what it is there.

    Raises:
        BadConfiguration: the bundle was replaced meanwhile.
        TfbatchError: see `begin_job`.
    """
    job = begin_job(orders.config, orders.plan)
    if job.fingerprint != orders.fingerprint:
        raise BadConfiguration(f"bundle {job.bundle.path} was changed as the job began; run it again")
    return job


def do_share(job: Job, orders: Orders, link: Link, tally: Tally, stop: Stop) -> None:
    """Do the parts that are given out, as long as there are any."""
    storage = open_storage(job.output, stop.beat)
    with failing_as_output(job.output, storage):
        storage.join(orders.spool, link.ask_leave)
    drafts = Drafts(job.output, storage, job.plan, job.schema, job.fingerprint, job.sink)

    shown: set[Part] = set()

    def parts() -> Iterator[list[Part]]:
        while (lot := link.ask(More())).parts:
            shown.update(lot.shown)
            yield lot.parts

    def new_sheet() -> ContactSheet:
        return ContactSheet("", job.config.contact_sheet or 0)

    sessions: list[Session] = []

    def open_once(job: Job, callers: int, stop: Stop) -> Session:
        if not sessions:  # a second model would be one too many for its GPU
            sessions.append(session_of(job, callers, stop))
        return sessions[0]

    while link.ask(Free()):
        sheet = new_sheet()
        for finished, record in work(job, parts(), drafts.append, tally, stop, open_once):
            part = finished.window.part
            if part in shown:
                show(finished, job, sheet)
            link.send(
                Scored(
                    rows=finished.table.num_rows,
                    errors=len(finished.errors),
                    first_error=tally.first_error,
                    batch_tokens=tally.batch_tokens,
                )
            )
            if record is not None:
                link.send(Complete(part=part, record=record, drawn=sheet.rows, tally=up_to_now(tally)))
                sheet = new_sheet()
