"""A run that is killed, at any system call and at any time, costs nothing that is finished."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from faults.jobs import Job, Trial, check_output
from faults.runs import Server
from faults.system_calls import NAMING, OTHERS, SYNCING, WRITING, Point, points_of, strike
from faults.watch import Watch

pytestmark = pytest.mark.faults
AT_ONCE = 2
CALLS = (*WRITING, *SYNCING, *NAMING, *OTHERS)
REMOVING = ("rmdir", "unlink", "unlinkat", "mkdir")
Prepare = Callable[[Trial], None]


@pytest.mark.parametrize(("kind", "rows", "least"), [("folder", 10, 90), ("file", 15, 60), ("pictures", 2, 60)])
def test_a_run_killed_at_any_system_call_on_its_output_goes_on_to_the_same_bytes(
    kind: str, rows: int, least: int, make: Callable[[str, int], Job], server: Server, strace: None, place: Path
) -> None:
    trial = Trial(server=server, job=make(kind, rows), folder=place)
    assert kill_everywhere(trial, lambda _: None) >= least


@pytest.mark.parametrize(("kind", "rows", "times"), [("folder", 10, 30), ("file", 15, 10), ("pictures", 2, 10)])
def test_a_run_killed_at_a_random_time_goes_on_to_the_same_bytes(
    kind: str, rows: int, times: int, make: Callable[[str, int], Job], server: Server, place: Path
) -> None:
    whole = Trial(server=server, job=make(kind, rows), folder=place / "whole")
    running = whole.start()
    assert whole.end(running).code == 0
    moments = random.Random(kind)

    def kill(number: int) -> int:
        for attempt in count(1):
            struck = replace(whole, folder=place / f"{number}-{attempt}")
            with Watch(struck) as watch:
                killed = struck.start()
                time.sleep(moments.uniform(0, running.seconds))
                is_killed = killed.kill().code == -signal.SIGKILL  # else it was done before
                check_output(struck)
                struck.finish()
            assert watch.looks
            shutil.rmtree(struck.folder)
            if is_killed:
                break
        return attempt

    with ThreadPoolExecutor(AT_ONCE) as pool:
        attempts = sum(pool.map(kill, range(times)))
    print(f"{kind}: {times} of {attempts} runs killed at random times")


def kill_over_a_record(trial: Trial, part: int) -> None:
    """Kill a run where a part (from 0) has its name, and its record is about to get one."""
    whole = replace(trial, folder=trial.folder / "whole")
    points = points_of(whole.hold(), whole.out, trial.folder / "log", NAMING)
    shutil.rmtree(whole.folder)
    link = [index for index, (name, _) in enumerate(points) if name.startswith("link")][part]
    running = trial.hold()
    strike(running, points[link + 1], "signal=KILL")
    assert running.wait().code == -signal.SIGKILL
    assert len(list(trial.out.glob("part-*"))) == part + 1
    assert len(list((trial.out / "_tfbatch").glob("done/part-*"))) == part


def test_a_job_killed_over_its_first_record_does_not_bar_another(trial: Trial, strace: None) -> None:
    kill_over_a_record(trial, 0)
    assert trial.run("--max-length", 10).code == 0


def test_a_run_killed_while_it_starts_anew_goes_on_to_the_same_bytes(
    make: Callable[[str, int], Job], server: Server, strace: None, place: Path
) -> None:
    for kind in ("folder", "file"):
        trial = Trial(server=server, job=make(kind, 30), folder=place / kind)
        other = Trial(server=server, job=make(kind, 20), folder=place / f"{kind}-other")
        assert other.run().code == 0
        killed = kill_everywhere(trial, lambda struck, other=other: copy(other, struck), "--overwrite", calls=REMOVING)
        assert killed >= 10


def test_a_run_killed_again_where_a_crash_left_an_unrecorded_part_goes_on_to_the_same_bytes(
    make: Callable[[str, int], Job], server: Server, strace: None, place: Path
) -> None:
    trial = Trial(server=server, job=make("pictures", 3), folder=place / "pictures")
    crashed = replace(trial, folder=place / "crashed")
    kill_over_a_record(crashed, 1)
    assert kill_everywhere(trial, lambda struck: copy(crashed, struck), calls=(*NAMING, *REMOVING)) >= 10


def test_a_file_is_known_as_tfbatchs_after_two_kills_over_its_replacement(
    make: Callable[[str, int], Job], server: Server, strace: None, place: Path
) -> None:
    other = Trial(server=server, job=make("file", 20), folder=place / "other")
    trial = Trial(server=server, job=make("file", 30), folder=place / "trial")
    assert other.run().code == 0
    copy(other, trial)
    for words in (("--overwrite",), ()):
        whole = replace(trial, folder=place / f"whole{len(words)}")
        copy(trial, whole)
        joined = whole.root / "_tfbatch" / "tmp" / whole.out.name
        (replacing,) = points_of(whole.hold(*words), joined, place / "log", NAMING)
        running = trial.hold(*words)
        strike(running, replacing, "signal=KILL")
        assert running.wait().code == -signal.SIGKILL
        assert trial.out.read_bytes() == other.out.read_bytes()
    trial.finish()


def copy(finished: Trial, to: Trial) -> None:
    """What another run left, inodes aside: a file that was put in place is known by its own."""
    shutil.copytree(finished.folder, to.folder, ignore=shutil.ignore_patterns("run.prom"))
    joined = to.root / "_tfbatch" / "joined.json"
    if joined.exists():
        inodes = {finished.out.stat().st_ino: to.out.stat().st_ino}
        files = [{**entry, "inode": inodes.get(entry["inode"])} for entry in json.loads(joined.read_text())["files"]]
        joined.write_text(json.dumps({"files": files}))


def kill_everywhere(trial: Trial, prepare: Prepare, *words: object, calls: tuple[str, ...] = CALLS) -> int:
    """Kill runs with these words in each of their system calls, all from what `prepare` leaves; how many."""
    whole = replace(trial, folder=trial.folder / "whole")
    prepare(whole)
    points = points_of(whole.hold(*words), whole.out, trial.folder / "log", calls)

    def kill(point: Point) -> bool:
        struck = replace(trial, folder=trial.folder / f"{point[0]}-{point[1]}")
        prepare(struck)
        with Watch(struck) as watch:
            running = struck.hold(*words)
            strike(running, point, "signal=KILL")
            killed = struck.end(running).code == -signal.SIGKILL
            if not words:
                check_output(struck)
            struck.finish(*words)
        assert watch.looks
        shutil.rmtree(struck.folder)
        return killed

    with ThreadPoolExecutor(AT_ONCE) as pool:
        killed = sum(pool.map(kill, points))
    print(f"killed at {killed} of {len(points)} system calls")
    return killed
