"""Several processes share a job's parts: the output is that of one, whatever becomes of them."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Finished, part_hashes, run_tfbatch, tfbatch_env, write_reviews
from PIL import Image
from tfbatch import errors
from tfbatch.clock import Clock, Stage
from tfbatch.config import RunConfig
from tfbatch.errors import DeviceUnavailable, UsageError
from tfbatch.host.child import ending
from tfbatch.job import choose_workers
from tfbatch.plan import Part
from tfbatch.reporting.sheet_rows import FirstRows
from tfbatch.runtimes.device import find_devices
from tfbatch.session import Device
from tfbatch.workers.lots import Lots

ROWS, ROWS_A_PART = 8_000, 100


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, text_bundle: Path) -> tuple[list[object], dict[str, str]]:
    """A job of 80 parts but for its output, and their hashes as one process makes them."""
    folder = tmp_path_factory.mktemp("long")
    source = write_reviews(folder / "in.parquet", ROWS, row_group=1000)
    words: list[object] = ["run", source, "-m", text_bundle, "--rows-per-part", ROWS_A_PART]
    assert run_tfbatch(*words, "-o", folder / "out").code == 0
    return words, part_hashes(folder / "out")


class Running:
    """A run with workers that is met on its way."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "tfbatch.cli", *map(str, words)]
        self.process = subprocess.Popen(
            command, env=tfbatch_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._output = Path(str(words[words.index("-o") + 1]))

    def wait_for(self, parts: int, below: int = ROWS) -> None:
        """Until so many parts are finished, of those that begin before a row."""
        done = self._output / "_tfbatch" / "done"
        while sum(int(path.name.split("-")[2]) < below for path in done.glob("part-*")) < parts:
            assert self.process.poll() is None
            time.sleep(0.002)

    def workers(self) -> list[int]:
        """The numbers of its workers' processes that are not over."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes()
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"tfbatch.workers.worker" in words and fields[0] != "Z" and int(fields[1]) == self.process.pid:
                found.append(int(folder.name))
        return sorted(found)

    def end(self) -> Finished:
        out, err = self.process.communicate(timeout=60)
        return Finished(self.process.returncode, out, err)


def is_over(pid: int) -> bool:
    """Whether a process has ended, within a few seconds."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_workers_write_what_one_process_writes(long: tuple[list[object], dict[str, str]], tmp_path: Path) -> None:
    words, whole = long
    done = run_tfbatch(*words, "-o", tmp_path / "out", "--workers", 3)
    assert done.code == 0, done.err
    assert part_hashes(tmp_path / "out") == whole
    assert (done.result["workers"], done.result["lost_workers"], done.result["rows"]) == (3, 0, ROWS)
    assert done.result["bottleneck_share"] <= 1
    assert not list((tmp_path / "out" / "_tfbatch" / "tmp").iterdir())
    assert run_tfbatch(*words, "-o", tmp_path / "out", "--workers", 2).result["status"] == "already done"


def test_what_processes_do_adds_up_and_what_they_stand_still_for_is_a_mean() -> None:
    clock, seconds = Clock(), 10.0
    for _ in range(4):
        one = Clock(write=Stage(busy=6, waited=6), compute=Stage(workers=2, busy=12, waited=5))
        clock.add(one, workers=4)
    assert (clock.busy()["write"], clock.waited()["write"], clock.waited()["compute"]) == (24, 6, 5)
    assert (clock.shares(seconds)["write"], clock.shares(seconds)["compute"]) == (0.6, 0.6)


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "ended with exit code 3"), (-15, "was ended (SIGTERM)"), (-36, "was ended (signal 36)")],
)
def test_how_a_process_ended_is_said(status: int, words: str) -> None:
    assert ending(status) == words


def test_parts_are_given_out_in_runs_that_get_shorter() -> None:
    parts = [
        Part(file=file, first=first, stop=first + 10, folder=PurePath(), identity="")
        for file in range(2)
        for first in range(0, 400, 10)
    ]
    lots, given = Lots(parts, 2), []
    while lot := lots.take([]):
        given.append(lot)
        assert all((one.file, one.stop) == (next_.file, next_.first) for one, next_ in pairwise(lot))
    assert [part for lot in given for part in lot] == parts
    sizes = [len(lot) for lot in given]
    assert sizes[0] == 10
    assert sizes[-8:] == [1] * 8


def test_parts_that_cost_a_worker_come_next_and_by_themselves_and_cost_two_at_most() -> None:
    parts = [Part(file=0, first=row, stop=row + 10, folder=PurePath(), identity="") for row in range(0, 400, 10)]
    lots = Lots(parts, 2)
    first, second = lots.take([]), lots.take([])
    assert lots.take_back(second[:2]) is None
    assert lots.take(first) == []  # its worker may die of what it has
    assert lots.take([]) == second[:1]
    assert lots.take(second[:1]) == []
    assert lots.take_back(second[:1]) == second[0]


def test_one_file_is_joined_from_the_parts_of_all(
    long: tuple[list[object], dict[str, str]], reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", reviews, "-m", text_bundle, "--rows-per-part", 90, "--batch-tokens", "auto"]
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run_tfbatch(*words, "-o", tmp_path / "two.parquet", "--workers", 2, env=env)
    assert done.code == 0, done.err
    assert run_tfbatch(*words, "-o", tmp_path / "one.parquet", env=env).code == 0
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    assert done.result["batch_tokens"] in (128, 256, 512, 1024)


def test_pictures_and_the_contact_sheet_come_from_all_workers(
    picture_model: Callable[[str], tuple[Path, Path]], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    cells = [b"broken" if row < 70 else picture(seed=row) for row in range(78)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", picture_model("vit")[1], "--rows-per-part", 3]
    words += ["--images", "files", "--contact-sheet", 5]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_tfbatch(*words, "-o", one).code == 0
    done = run_tfbatch(*words, "-o", two, "--workers", 2)
    assert done.code == 0, done.err
    assert done.result["errors"] == 70
    files = [path.relative_to(one) for path in one.rglob("*") if path.suffix in (".parquet", ".png")]
    assert len([path for path in files if path.parts[0] == "_images"]) == 8
    for file in files:
        if file.name != "contact_sheet.png":
            assert (two / file).read_bytes() == (one / file).read_bytes()
    sheets = [(out / "_tfbatch" / "contact_sheet.png").read_bytes() for out in (one, two)]
    assert Image.open(io.BytesIO(sheets[0])).size == Image.open(io.BytesIO(sheets[1])).size  # as many rows on both


def test_the_parts_of_a_killed_worker_are_taken_over(long: tuple[list[object], dict[str, str]], tmp_path: Path) -> None:
    words, whole = long
    running = Running(*words, "-o", tmp_path / "out", "--workers", 3)
    running.wait_for(parts=5)
    os.kill(running.workers()[0], signal.SIGKILL)
    running.wait_for(parts=30, below=3_000)  # what it had too, which two that die at it would end the job for
    os.kill(running.workers()[-1], signal.SIGSEGV)
    done = running.end()
    assert done.code == 0, done.err
    assert part_hashes(tmp_path / "out") == whole
    assert done.result["lost_workers"] == 2
    assert (done.result["rows"], done.result["errors"]) == (ROWS, 0)
    assert "was killed, perhaps for the memory it took; the others take over what it had" in done.err
    assert "crashed (SIGSEGV); the others" in done.err
    assert not list((tmp_path / "out" / "_tfbatch" / "tmp").iterdir())


def test_what_a_killed_worker_has_done_is_counted(text_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["good film " * (row % 40) for row in range(ROWS)]}), source, row_group_size=1000)
    words = ["run", source, "-m", text_bundle, "--max-length", 24, "--rows-per-part", ROWS_A_PART]
    whole = run_tfbatch(*words, "-o", tmp_path / "one").result
    running = Running(*words, "-o", tmp_path / "out", "--workers", 2)
    running.wait_for(parts=20)
    os.kill(running.workers()[0], signal.SIGKILL)
    done = running.end()
    assert (done.code, done.result["lost_workers"]) == (0, 1), done.err
    for name in ("rows", "errors", "truncated_rows", "repeated_rows", "padding_ratio", "batch_tokens"):
        assert done.result[name] == whole[name]
    assert whole["truncated_rows"] > 0


def test_the_budget_of_a_batch_is_this_runs(long: tuple[list[object], dict[str, str]], tmp_path: Path) -> None:
    words = [*long[0], "-o", tmp_path / "out", "--workers", 2]
    assert run_tfbatch(*words, "--batch-tokens", 512).result["batch_tokens"] == 512
    for part in sorted((tmp_path / "out").glob("part-*"))[:4]:
        part.unlink()
    assert run_tfbatch(*words, "--batch-tokens", 256).result["batch_tokens"] == 256


def test_the_first_rows_are_drawn_in_whatever_order_parts_are_finished() -> None:
    parts = [Part(file=0, first=first, stop=first + 10, folder=PurePath(), identity="") for first in range(0, 60, 10)]
    rows = FirstRows(5)
    rows.keep(parts[4], [f"4-{row}" for row in range(4)])
    assert rows.want(parts[5])
    rows.keep(parts[1], [])
    rows.keep(parts[3], [f"3-{row}" for row in range(4)])
    assert (rows.want(parts[5]), rows.want(parts[2])) == (False, True)
    rows.keep(parts[5], ["too late"])
    assert rows.rows() == ["3-0", "3-1", "3-2", "3-3", "4-0"]
    rows.keep(parts[0], ["0-0"])
    rows.keep(parts[2], [f"2-{row}" for row in range(4)])
    assert rows.rows() == ["0-0", "2-0", "2-1", "2-2", "2-3"]


def test_a_job_without_workers_left_keeps_its_parts(long: tuple[list[object], dict[str, str]], tmp_path: Path) -> None:
    words, whole = long
    running = Running(*words, "-o", tmp_path / "out", "--workers", 2)
    running.wait_for(parts=5)
    for worker in running.workers():
        os.kill(worker, signal.SIGKILL)
    done = running.end()
    assert done.code == errors.TryAgain.exit_code
    assert "was killed, perhaps for the memory it took, " in done.err
    assert 500 <= done.result["rows"] < ROWS
    assert run_tfbatch(*words, "-o", tmp_path / "out", "--workers", 2).code == 0
    assert part_hashes(tmp_path / "out") == whole


DEADLY = """
import os, signal
link = os.link

def die(source, target, **more):
    if "-0000000300-" in os.fspath(target):
        os.kill(os.getpid(), signal.SIGKILL)
    link(source, target, **more)

os.link = die
"""


@pytest.mark.parametrize("size", [100, 25])
def test_a_part_that_kills_its_workers_does_not_kill_all(
    size: int, reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), tfbatch_env()["PYTHONPATH"]])}
    words = ["run", reviews, "-m", text_bundle, "--rows-per-part", size, "-o", tmp_path / "out", "--workers", 4]
    done = run_tfbatch(*words, env=env)
    assert done.code == errors.TryAgain.exit_code
    assert f"as another did before it, at rows 300 to {299 + size} of {reviews}; finished parts are kept" in done.err
    assert run_tfbatch(*words).code == 0


POISON = """
import os, signal
import tfbatch.flow

prepare = tfbatch.flow.Flow._prepare

def die(self, window):
    if window.first <= 300 < window.first + window.rows.num_rows:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(self, window)

tfbatch.flow.Flow._prepare = die
"""


def test_rows_that_kill_as_they_are_read_are_told_from_those_around_them(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    """A worker reads ahead: what it died of is not the first part that it had."""
    (tmp_path / "sitecustomize.py").write_text(POISON)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), tfbatch_env()["PYTHONPATH"]])}
    words = ["run", reviews, "-m", text_bundle, "--rows-per-part", 10, "-o", tmp_path / "out", "--workers", 2]
    done = run_tfbatch(*words, env=env)
    assert done.code == errors.TryAgain.exit_code
    assert f"as another did before it, at rows 300 to 309 of {reviews}; finished parts are kept" in done.err


HANGING = """
import os, time
link = os.link

def hang(source, target, **more):
    if "-0000000300-" in os.fspath(target) and not os.path.exists("{mark}"):
        open("{mark}", "w").close()
        time.sleep(1000)
    link(source, target, **more)

os.link = hang
"""


def test_the_parts_of_a_worker_that_stands_still_are_taken_over(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING.format(mark=tmp_path / "mark"))
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), tfbatch_env()["PYTHONPATH"]])}
    words = ["run", reviews, "-m", text_bundle, "--rows-per-part", 100, "-o", tmp_path / "out", "--workers", 2]
    done = run_tfbatch(*words, "--stall-timeout", 3, env=env)
    assert done.code == 0, done.err
    assert (done.result["rows"], done.result["lost_workers"]) == (1000, 1)
    assert "got nothing done in 3 s (--stall-timeout) and was ended; the others take over what it had" in done.err
    assert re.search(r"where worker-\d stood:\n", done.err)
    assert "in hang" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_workers_end_with_the_job(
    number: int, code: int, long: tuple[list[object], dict[str, str]], tmp_path: Path
) -> None:
    words, whole = long
    running = Running(*words, "-o", tmp_path / "out", "--workers", 2)
    running.wait_for(parts=5)
    workers = running.workers()
    assert len(workers) == 2
    running.process.send_signal(number)
    assert running.end().code == code
    assert all(map(is_over, workers))
    done = run_tfbatch(*words, "-o", tmp_path / "out", "--workers", 2)
    assert done.code == 0, done.err
    assert part_hashes(tmp_path / "out") == whole


def test_workers_write_no_more_where_the_output_was_moved_away(
    long: tuple[list[object], dict[str, str]], tmp_path: Path
) -> None:
    """The job's process, which alone knows that, is asked before a part is begun and before it gets its name."""
    words, _ = long
    running = Running(*words, "-o", tmp_path / "out", "--workers", 2)
    running.wait_for(parts=3)
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "out/_tfbatch/tmp/worker-0").mkdir(parents=True)
    (tmp_path / "out/_tfbatch/tmp/worker-1").mkdir()
    (tmp_path / "out/_tfbatch/lock").touch()
    done = running.end()
    assert done.code == errors.TryAgain.exit_code, done.err
    assert "was removed or moved while it was written" in done.err
    assert not list((tmp_path / "out").rglob("part-*.parquet"))


def test_what_a_worker_cannot_read_fails_the_job(
    long: tuple[list[object], dict[str, str]], tmp_path: Path, text_bundle: Path
) -> None:
    source = write_reviews(tmp_path / "in.parquet", 1000, row_group=100)
    content = bytearray(source.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    source.write_bytes(content)
    words = ["run", source, "-m", text_bundle, "--rows-per-part", 100, "-o", tmp_path / "out"]
    done = run_tfbatch(*words, "--workers", 2)
    assert done.code == errors.BadInput.exit_code
    assert f"{source} cannot be read" in done.err
    assert "(worker-" in done.err


def test_errors_of_all_workers_count_against_the_limit(text_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [None, "good film"] * 200}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", text_bundle, "--rows-per-part", 40, "-o", tmp_path / "out"]
    done = run_tfbatch(*words, "--workers", 2, "--max-errors", 90)
    assert done.code == errors.TooManyRowErrors.exit_code
    assert "--max-errors 90 allows 90; the first met now is row" in done.err


def test_too_few_parts_are_told_of(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--workers", 2)
    assert done.code == 0
    assert "1 part(s) for 2 workers" in done.err


def test_several_gpus_are_one_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfbatch.runtimes.device.cuda_problem", lambda index: "there is none" if index > 2 else None)
    gpus = [Device(runtime="cuda", index=index) for index in (2, 0)]
    assert find_devices("cuda:2,0,2") == gpus
    assert find_devices("cuda:1", 1.5) == [Device(runtime="cuda", index=1, memory=3 << 29)]
    with pytest.raises(UsageError, match="--gpu-memory is for GPUs"):
        find_devices("cpu", 1)
    assert choose_workers(RunConfig(inputs=()), gpus) == 2
    assert choose_workers(RunConfig(inputs=(), workers=4), gpus) == 4
    with pytest.raises(UsageError, match="would leave some of the 2 GPUs"):
        choose_workers(RunConfig(inputs=(), workers=1), gpus)
    with pytest.raises(DeviceUnavailable, match="cuda:3: there is none"):
        find_devices("cuda:0,3")
    with pytest.raises(UsageError, match="cuda:N,M"):
        find_devices("cuda:0,cpu")
