"""A terminal gets a bar, everything else a line now and then."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tfbatch_env
from tfbatch.reporting.progress import JsonLines, Lines, Silent, choose_watcher


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    watcher = choose_watcher(quiet=False, log_format="text")
    watcher.start(100, 40)
    watcher.advance(10, 2)
    watcher.stop()
    assert "50/100" in shown.getvalue()
    assert "2 errors" in shown.getvalue()


@pytest.mark.parametrize(("quiet", "log_format", "kind"), [(True, "text", Silent), (False, "json", JsonLines)])
def test_a_terminal_gets_what_was_asked_for(
    quiet: bool, log_format: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert type(choose_watcher(quiet=quiet, log_format=log_format)) is kind


@pytest.mark.parametrize("stderr", [None, io.StringIO(), Terminal()])
def test_what_draws_no_bar_gets_lines(stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed standard error, a file, and a terminal that cannot move its cursor."""
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "dumb")
    assert type(choose_watcher(quiet=False, log_format="text")) is Lines


def test_a_file_gets_lines_and_what_draws_bars_is_not_even_imported() -> None:
    program = (
        "import sys; from tfbatch.reporting.progress import choose_watcher; "
        "print(type(choose_watcher(quiet=False, log_format='text')).__name__, 'rich' in sys.modules)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=tfbatch_env())
    assert done.stdout.split() == [Lines.__name__, "False"]


FULL = Path("/dev/full")  # takes nothing: a full disk
PROGRAM = (
    "from tfbatch.reporting import progress; progress.SECONDS_BETWEEN_LINES = 0; from tfbatch.cli import main; main()"
)


def run_into(words: list[object], *, out: Path | None = None, err: Path | None = None) -> tuple[int, str]:
    """The exit code of a command whose output goes elsewhere, and what it writes to standard output."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    with (out or Path(os.devnull)).open("w") as full, (err or Path(os.devnull)).open("w") as log:
        process = subprocess.Popen(
            command, env=tfbatch_env(), stdout=full if out else subprocess.PIPE, stderr=log, text=True
        )
        said, _ = process.communicate()
    return process.returncode, said


@pytest.mark.skipif(not FULL.exists(), reason="a system without it")
@pytest.mark.parametrize("more", [[], ["--log-format", "json"], ["--workers", 2]])
def test_rows_are_scored_where_nobody_can_read_how_far_they_are(
    more: list[object], reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 300, *more]
    code, said = run_into(words, err=FULL)
    assert (code, json.loads(said)["rows"]) == (0, 1000)
    code, said = run_into(["run", tmp_path / "none.parquet", "-m", text_bundle, *more], err=FULL)
    assert (code, json.loads(said)["exit_code"]) == (66, 66)


@pytest.mark.skipif(not FULL.exists(), reason="a system without it")
def test_a_last_line_that_cannot_be_written_is_told_of(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    metrics, log = tmp_path / "run.prom", tmp_path / "log"
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--metrics-file", metrics]
    code, _ = run_into(words, out=FULL, err=log)
    assert code == 74
    assert "the output is finished, but standard output cannot be written: No space left" in log.read_text()
    assert 'tfbatch_exit_code{run="run"} 74' in metrics.read_text()
    assert run_into(words)[0] == 0


def test_a_last_line_that_nobody_has_asked_for_is_told_of_too(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out"]
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-m", "tfbatch.cli", *map(str, words)]
    done = subprocess.run(command, env=tfbatch_env(), stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "standard output cannot be written" in done.stderr) == (74, True), done.stderr


@pytest.mark.parametrize(("words", "code"), [(["doctor"], 0), (["inspect", "BUNDLE"], 0), (["inspect", "nowhere"], 66)])
@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_commands_do_their_work_whoever_hears_of_it(
    stream: str, words: list[str], code: int, text_bundle: Path
) -> None:
    words = [str(text_bundle) if word == "BUNDLE" else word for word in words]
    command = ["bash", "-c", f'exec "$@" {stream}', "bash", sys.executable, "-m", "tfbatch.cli", *words]
    done = subprocess.run(command, env=tfbatch_env(), stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, bool(done.stdout)) == (code, code == 0)


@pytest.mark.parametrize("words", [["tasks"], ["doctor"], ["inspect", "BUNDLE"]])
def test_what_other_commands_say_is_said_or_told_of(words: list[str], text_bundle: Path) -> None:
    words = [str(text_bundle) if word == "BUNDLE" else word for word in words]
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "tfbatch.cli", *words]
        done = subprocess.run(command, env=tfbatch_env(), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 74
    assert done.stderr.endswith("tfbatch: standard output cannot be written: No space left on device\n")
