"""A run that is told to end, takes too long, or stands still: it ends soon, and keeps what is finished."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from conftest import tfbatch_env
from s3 import never_answer

from faults.jobs import MARK, Job, Trial, check_output, contents, make_job, write_pictures, write_texts
from faults.runs import Running, Server

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def long_jobs(
    server: Server, memory: Path, text_bundle: Path, picture_model: Callable[[str], tuple[Path, Path]]
) -> dict[str, Job]:
    """Seconds of work each."""
    texts, pictures = write_texts(memory / "long.parquet", 12_000), write_pictures(memory / "many.parquet", 2_000)
    model = ("-m", picture_model("vit")[1], "--images", "files", "--rows-per-part", 250)
    return {
        "texts": make_job(server, memory / "long", "out", texts, "-m", text_bundle, "--rows-per-part", 1000),
        "pictures": make_job(server, memory / "many", "out", pictures, *model),
    }


def wait_until_begun(running: Running, trial: Trial) -> None:
    """Wait until a run hears signals: it has begun its output."""
    while not (trial.root / "_tfbatch" / "tmp").exists() and not running.ends_within(0.001):
        pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_at_any_time_ends_a_run_soon_and_runs_go_on_to_the_same_bytes(
    number: int, code: int, long_jobs: dict[str, Job], server: Server, place: Path
) -> None:
    moments = random.Random(code)
    for kind, times in (("texts", 13), ("pictures", 7)):
        took: list[float] = []
        outputs = (place / kind / str(number) for number in count())
        trial = Trial(server=server, job=long_jobs[kind], folder=next(outputs), log_format="json")
        while len(took) < times:
            running = trial.start()
            time.sleep(moments.uniform(0.05, 0.7))
            running.send(number)
            sent = time.monotonic()
            done = trial.end(running)
            if done.code == code:
                took.append(time.monotonic() - sent)
                assert "goes on from there" in done.result["reason"]
                check_output(trial)
            elif done.code != -number:  # which is before it could hear any; and this, after its end
                assert done.code == 0, done
                assert contents(trial.out) == trial.job.whole
                trial = replace(trial, folder=next(outputs))
        trial.finish()
        print(f"{kind}: {code} after {statistics.median(took):.2f} s in the median, {max(took):.2f} s at worst")
        assert statistics.median(took) <= 2
        assert max(took) <= 25


def test_a_signal_while_a_process_starts_leaves_no_traceback(trial: Trial) -> None:
    words = ["run", *trial.job.words, "-o", trial.out, "--overwrite"]
    moments, codes = random.Random(0), []
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-m", "tfbatch.cli", *map(str, words)], env=tfbatch_env(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            time.sleep(moments.uniform(0, 1.2))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate()
        assert process.returncode in (0, 143, -signal.SIGTERM), err
        ended = "" if process.returncode < 0 else f'"exit_code": {process.returncode}'
        assert ended in out, out
        assert bool(out) == bool(ended), "a process that a signal ends has not said how it ended"
        assert len(err.splitlines()) == bool(ended), err
        assert MARK not in out + err
        codes.append(process.returncode)
    print("SIGTERM while starting:", codes)
    assert any(codes)


def test_a_run_that_takes_longer_than_timeout_ends_and_the_next_goes_on(
    long_jobs: dict[str, Job], server: Server, place: Path
) -> None:
    trial = Trial(server=server, job=long_jobs["pictures"], folder=place)
    done = trial.run("--timeout", 0.1)
    assert done.code == 75
    assert "--timeout" in done.result["reason"]
    assert "most recent call first" not in done.err, "it has heard"
    check_output(trial)
    trial.finish()


@contextmanager
def standing_still(trial: Trial, *words: object) -> Iterator[Running]:
    """A run that waits for a decoder which has been stopped, as for a disk that does not answer."""
    running = trial.start(*words)
    decoders: list[int] = []
    try:
        while not decoders and not running.ends_within(0.001):
            decoders = children(running.pid)
        for decoder in decoders:
            os.kill(decoder, signal.SIGSTOP)
        wait_until_begun(running, trial)
        yield running
    finally:
        running.send(signal.SIGKILL)
        for decoder in decoders:
            os.kill(decoder, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Processes that a process has started, on any of its threads."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in lists for child in line.split()]


def test_a_run_that_hangs_is_given_up_and_a_second_signal_ends_it_at_once(
    make: Callable[[str, int], Job], server: Server, place: Path
) -> None:
    def trial(name: str) -> Trial:
        log_format = "json" if name == "term" else "text"
        return Trial(server=server, job=make("pictures", 2), folder=place / name, log_format=log_format)

    with (
        standing_still(trial("term")) as told,
        standing_still(trial("stall"), "--stall-timeout", 1) as stalled,
        standing_still(trial("twice")) as twice,
    ):
        told.send(signal.SIGTERM)
        sent = time.monotonic()
        twice.send(signal.SIGTERM)
        assert not twice.ends_within(1)
        twice.send(signal.SIGTERM)
        second = time.monotonic()
        assert trial("twice").end(twice).code == 143
        assert time.monotonic() - second <= 1
        given_up = trial("term").end(told)
        assert given_up.code == 143
        assert time.monotonic() - sent <= 25
        done = stalled.wait()
    assert done.code == done.result["exit_code"] == 75
    assert "--stall-timeout" in done.result["reason"]
    assert "Current thread" in done.err
    assert "most recent call first" in done.err
    assert "decoders.py" in done.err
    assert MARK not in done.err
    (stacks,) = [json.loads(line)["stacks"] for line in given_up.err.splitlines() if "stacks" in json.loads(line)]
    assert any("decoders.py" in stack for stack in stacks)
    for name in ("term", "stall", "twice"):
        check_output(trial(name))
        trial(name).finish()


def test_a_run_whose_store_never_answers_is_given_up(trial: Trial) -> None:
    with never_answer() as store, store.asked_by(*trial.job.words, "-o", "s3://silent/out") as run:
        run.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        out, err = run.communicate()
        assert 20 <= time.monotonic() - sent <= 25
    assert (run.returncode, json.loads(out)["exit_code"]) == (143, 143)
    assert "most recent call first" in err
    assert MARK not in out + err
