"""A disk that fails or is full: an exit code, one sentence, no short part, and the next run goes on."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_tfbatch

from faults.jobs import Job, Trial, check_output, make_job, snapshot, write_texts
from faults.mounts import mounted, remount
from faults.runs import Server
from faults.system_calls import NAMING, SYNCING, WRITING, Point, points_of, strike

pytestmark = pytest.mark.faults
AT_ONCE = 2
LOGS = {"EIO": "text", "ENOSPC": "json"}


@pytest.mark.parametrize(("kind", "rows", "least"), [("folder", 20, 20), ("file", 30, 20), ("pictures", 3, 20)])
def test_an_error_of_any_write_sync_or_name_is_one_sentence_and_the_next_run_goes_on(
    kind: str, rows: int, least: int, make: Callable[[str, int], Job], server: Server, strace: None, place: Path
) -> None:
    trial = Trial(server=server, job=make(kind, rows), folder=place)
    whole = replace(trial, folder=place / "whole")
    points = points_of(whole.hold(), whole.out, place / "log", (*WRITING, *SYNCING, *NAMING))
    assert len(points) >= least

    def fail(case: tuple[Point, str]) -> None:
        (name, number), error = case
        struck = replace(trial, folder=place / f"{name}-{number}-{error}", log_format=LOGS[error])
        running = struck.hold()
        strike(running, (name, number), f"error={error}")
        done = struck.end(running)
        assert done.code in (73, 74), (case, done)
        assert len(done.err.splitlines()) == 1, done.err
        check_output(struck)
        struck.finish()
        shutil.rmtree(struck.folder)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fail, product(points, LOGS)))
    print(f"{kind}: {len(points)} calls failed with each of {', '.join(LOGS)}")


def test_a_full_disk_costs_the_part_that_did_not_fit(server: Server, text_bundle: Path, place: Path) -> None:
    source = write_texts(place / "in.parquet", 60)
    noise = pa.array([np.random.default_rng(row).bytes(30_000) for row in range(60)])
    pq.write_table(pq.read_table(source).append_column("noise", noise), source)
    job = make_job(server, place / "whole", "out", source, "-m", text_bundle, "--rows-per-part", 10)
    for log_format in LOGS.values():
        trial = Trial(server=server, job=job, folder=place / log_format, log_format=log_format)
        with mounted(trial.out, "-t", "tmpfs", "-o", "size=1m", "none"):
            done = trial.run()
            assert (done.code, done.result["parts"]) == (74, 3), done
            assert "No space left on device" in done.result["reason"]
            assert len(done.err.splitlines()) == 1
            check_output(trial)
            assert not list((trial.out / "_tfbatch" / "tmp").iterdir())
            remount(trial.out, "size=16m")
            trial.finish()


def test_a_disk_that_is_full_while_a_bundle_is_made_is_said_and_left_as_it_was(
    text_checkpoint: Path, place: Path
) -> None:
    place.mkdir(exist_ok=True)
    with mounted(place, "-t", "tmpfs", "-o", "size=100k", "none"):
        done = run_tfbatch("export", text_checkpoint, "-o", place / "bundle")
        assert (done.code, "No space left on device" in done.err.splitlines()[-1]) == (74, True), done.err
        assert not list(place.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_and_left_alone(trial: Trial) -> None:
    with mounted(trial.out, "-t", "tmpfs", "none"):
        remount(trial.out, "ro")
        assert_refused(trial)
        remount(trial.out, "rw")
        running = trial.start()
        while not list(trial.out.glob("part-*")):
            pass
        running.kill()
        remount(trial.out, "ro")
        assert_refused(trial)
        remount(trial.out, "rw")
        trial.finish()
        remount(trial.out, "ro")
        assert trial.run().result["status"] == "already done"


def assert_refused(trial: Trial) -> None:
    before = snapshot(trial.out)
    for log_format in LOGS.values():
        done = replace(trial, log_format=log_format).run()
        assert (done.code, len(done.err.splitlines())) == (73, 1), done
        assert "Read-only file system" in done.result["reason"]
    assert snapshot(trial.out) == before
