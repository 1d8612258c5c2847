"""What happens to an output in any order: Hypothesis looks for one that breaks it, and shortens it."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from faults.jobs import Job, Trial, contents, make_job, snapshot, visible_parts
from faults.mounts import mounted
from faults.runs import Server

pytestmark = pytest.mark.faults
SETTINGS = settings(
    max_examples=200, stateful_step_count=6, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
CONFIGURATIONS = ("plain", "other")
NUMBERS = count()
configurations, log_formats = st.sampled_from(CONFIGURATIONS), st.sampled_from(("text", "json"))
anew = st.sampled_from(((), ("--overwrite",)))
Words = tuple[str, ...]


class Output(RuleBasedStateMachine):
    """An output on a small disk, two configurations of one job, and all that befalls them."""

    def __init__(self, trials: dict[str, Trial], seconds: float, steps: Counter[str]) -> None:
        super().__init__()
        output = f"disk/{next(NUMBERS)}/out"
        self.of = {name: replace(trial, job=replace(trial.job, output=output)) for name, trial in trials.items()}
        self.root = self.of["plain"].root
        self.seconds = seconds
        self.steps = steps
        self.steps["outputs"] += 1
        self.is_tampered_with = False

    def teardown(self) -> None:
        shutil.rmtree(self.root.parent, ignore_errors=True)

    def run_to_its_end(self, name: str, log_format: str, words: Words) -> int:
        """Run to the known bytes, or be refused with nothing touched; the exit code."""
        before = snapshot(self.root)
        trial = replace(self.of[name], log_format=log_format)
        done = trial.run(*words)
        if done.code == 0:
            assert contents(trial.out) == trial.job.whole
            self.is_tampered_with = False
        elif done.code == 78:
            assert not words
            assert snapshot(self.root) == before
        self.steps[f"exit code {done.code}"] += 1
        return done.code

    @rule(name=configurations, words=anew, log_format=log_formats)
    def run(self, name: str, words: Words, log_format: str) -> None:
        assert self.run_to_its_end(name, log_format, words) in (0, 78)

    @rule(
        name=configurations, words=anew, log_format=log_formats, moment=st.floats(0.1, 1),
        number=st.sampled_from((signal.SIGKILL, signal.SIGTERM)),
    )  # fmt: skip
    def stop(self, name: str, words: Words, log_format: str, moment: float, number: int) -> None:
        trial = replace(self.of[name], log_format=log_format)
        running = trial.start(*words)
        time.sleep(moment * self.seconds)
        running.send(number)
        code = trial.end(running).code
        assert code in (0, 78, -number, 143)
        self.is_tampered_with &= code != 0
        self.steps[f"stopped with {code}"] += 1

    @rule(name=configurations, words=anew, log_format=log_formats, left=st.integers(0, 30))
    def run_on_a_full_disk(self, name: str, words: Words, log_format: str, left: int) -> None:
        ballast = self.root.parent.parent / "ballast"
        disk = os.statvfs(ballast.parent)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(disk.f_bavail - left, 1) * disk.f_frsize)
        try:
            assert self.run_to_its_end(name, log_format, words) in (0, 73, 74, 78)
        finally:
            ballast.unlink()

    @property
    def records(self) -> list[Path]:
        return sorted((self.root / "_tfbatch" / "done").glob("part-*.json"))

    @rule(index=st.integers(0, 99), content=st.sampled_from((None, "", "{", "null", "[]", "{}", "\0" * 40)))
    def break_a_record(self, index: int, content: str | None) -> None:
        if records := self.records:  # no precondition: how far a stopped run came is not Hypothesis's to say
            record = records[index % len(records)]
            if content is None:
                record.unlink()
            else:
                record.write_text(content)
            self.steps["records broken"] += 1

    @rule(index=st.integers(0, 99))
    def delete_a_part(self, index: int) -> None:
        if parts := visible_parts(self.root):
            parts[index % len(parts)].unlink()
            self.is_tampered_with = True
            self.steps["parts deleted"] += 1

    @rule(first=configurations, second=configurations, pause=st.floats(0, 1))
    def start_a_second_run(self, first: str, second: str, pause: float) -> None:
        one = self.of[first].start()
        time.sleep(pause * self.seconds)
        other = self.of[second].start()
        codes = {one.wait().code, other.wait().code}
        assert codes <= {0, 75, 78}
        assert codes & {0, 78}
        self.is_tampered_with &= 0 not in codes
        self.steps[f"two at once: {sorted(codes)}"] += 1

    def parts(self) -> dict[str, str]:
        return {name: content for name, content in contents(self.root).items() if is_part(name)}

    @invariant()
    def every_part_is_whole(self) -> None:
        whole = {part for trial in self.of.values() for part in trial.job.whole.items()}
        assert set(self.parts().items()) <= whole

    @invariant()
    def what_is_finished_holds_each_row_once(self) -> None:
        if (self.root / "_SUCCESS").exists() and not self.is_tampered_with:
            ends = [trial.job.whole for trial in self.of.values()]
            assert self.parts() in [{name: end[name] for name in end if is_part(name)} for end in ends]


def is_part(name: str) -> bool:
    return "_tfbatch" not in name and name.endswith(".parquet")


def test_in_whatever_order_a_finished_output_has_each_row_once_and_no_part_is_short(
    make: Callable[[str, int], Job], server: Server, place: Path
) -> None:
    plain = make("folder", 15)
    other = make_job(server, place / "other", "out", *plain.words, "--max-length", 10)
    with mounted(place / "disk", "-t", "tmpfs", "-o", "size=1m", "none"):
        trials = {
            name: Trial(server=server, job=job, folder=place)
            for name, job in zip(CONFIGURATIONS, (plain, other), strict=True)
        }
        running = replace(trials["plain"], job=replace(plain, output="disk/first/out")).start()
        assert running.wait().code == 0
        steps: Counter[str] = Counter()
        run_state_machine_as_test(lambda: Output(trials, running.seconds, steps), settings=SETTINGS)
    print(", ".join(f"{step}: {times}" for step, times in sorted(steps.items())))
