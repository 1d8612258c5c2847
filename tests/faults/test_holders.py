"""Others at the same output or input: one run proceeds, and what is not this job's is left alone."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from faults.jobs import Job, Trial, check_output, contents, make_job, snapshot, visible_parts, write_texts
from faults.runs import Running, Server

pytestmark = pytest.mark.faults
LOG_FORMATS = ("text", "json")


def stopped_while_writing(trial: Trial) -> Running:
    """A run that stands still with some parts finished, but not all."""
    while True:
        running = trial.start()
        while len(visible_parts(trial.root)) < 2 and not running.ends_within(0):
            pass
        running.send(signal.SIGSTOP)
        if not (trial.root / "_SUCCESS").exists():
            return running
        running.kill()
        shutil.rmtree(trial.root)


@pytest.fixture
def many(server: Server, make: Callable[[str, int], Job], place: Path) -> Trial:
    """Sixty parts of a text."""
    return Trial(server=server, job=make("folder", 1), folder=place)


@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_the_second_of_two_runs_names_the_first_and_starts_at_once_when_that_is_killed(
    log_format: str, many: Trial
) -> None:
    first = stopped_while_writing(many)
    late = replace(many, log_format=log_format)
    second = late.start()
    done = late.end(second)
    assert (done.code, second.seconds < 2) == (75, True), done
    assert f"process {first.pid} on " in done.result["reason"]
    if log_format == "text":
        first.send(signal.SIGCONT)
        assert first.wait().code == 0  # it was not disturbed
        assert contents(many.out) == many.job.whole
    else:
        first.kill()
        many.finish()


def test_of_runs_that_start_together_one_proceeds(trial: Trial) -> None:
    for number in range(10):
        each = [replace(trial, folder=trial.folder / str(number)) for _ in range(3)]
        held = [one.hold() for one in each]
        for running in held:
            running.go()
        ended = [running.wait() for running in held]
        assert {done.code for done in ended} <= {0, 75}, ended
        assert 0 in [done.code for done in ended]
        assert contents(each[0].out) == trial.job.whole


@pytest.mark.parametrize("fault", ["replaced", "overwritten", "truncated", "removed"])
@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_an_input_that_changes_is_exit_65_and_no_part_is_mixed(
    fault: str, log_format: str, server: Server, text_bundle: Path, place: Path
) -> None:
    source = write_texts(place / "in.parquet", 60)
    job = make_job(server, place / "whole", "out", source, "-m", text_bundle, "--rows-per-part", 1)
    trial = Trial(server=server, job=job, folder=place, log_format=log_format)
    kept = source.read_bytes()
    running = stopped_while_writing(trial)
    if fault == "replaced":
        write_texts(place / "other.parquet", 70).replace(source)
    elif fault == "overwritten":
        source.write_bytes(kept)
    elif fault == "truncated":
        os.truncate(source, len(kept) // 2)
    else:
        source.unlink()
    running.send(signal.SIGCONT)
    done = trial.end(running)
    assert done.code == 65, done
    assert str(source) in done.result["reason"]
    assert len(done.err.splitlines()) == 1
    check_output(trial)
    assert {name for name in contents(trial.out).items() if "/part-" in name[0]} <= set(job.whole.items())
    assert not list((trial.out / "_tfbatch" / "tmp").iterdir())


@pytest.mark.parametrize("state", ["finished", "half done", "joined"])
def test_another_bundle_column_or_setting_is_refused_and_touches_nothing(
    state: str, server: Server, text_bundle: Path, place: Path
) -> None:
    source = write_texts(place / "in.parquet", 60)
    table = pq.read_table(source)
    pq.write_table(table.append_column("other", table["text"]), source)
    bundle, other = copied(text_bundle, place / "bundle"), copied(text_bundle, place / "other")
    manifest = json.loads((other / "tfbatch.json").read_text())
    manifest["labels"] = [label.upper() for label in manifest["labels"]]
    (other / "tfbatch.json").write_text(json.dumps(manifest))
    words, column = ("--rows-per-part", 1), ("--input-column", "text")
    output = "out.parquet" if state == "joined" else "out"
    job = Job(words=(source, "-m", bundle, *column, *words), output=output, whole={})
    trial = Trial(server=server, job=job, folder=place / "trial")
    if state == "half done":
        stopped_while_writing(trial).kill()
    else:
        assert trial.run().code == 0
    before = snapshot(trial.root), trial.out.is_file() and snapshot(trial.out)
    changes = {
        "bundle": (source, "-m", other, *column, *words),
        "input column": (source, "-m", bundle, "--input-column", "other", *words),
        "--max-length": (source, "-m", bundle, *column, *words, "--max-length", 10),
        "--rows-per-part": (source, "-m", bundle, *column, "--rows-per-part", 2),
    }
    for log_format in LOG_FORMATS:
        for changed, changed_words in changes.items():
            refused = replace(trial, job=replace(job, words=changed_words), log_format=log_format)
            done = refused.run()
            assert done.code == 78, (changed, done)
            assert len(done.err.splitlines()) == 1
            assert f"another {changed}" in done.result["reason"], done
            assert "--overwrite" in done.result["reason"]
            assert (snapshot(trial.root), trial.out.is_file() and snapshot(trial.out)) == before


def copied(bundle: Path, to: Path) -> Path:
    to.mkdir()
    for file in bundle.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to
