"""A terminal gets a bar, everything else a line now and then."""

import io
import subprocess
import sys

import pytest
from conftest import tfbatch_env
from tfbatch.progress import JsonLines, Lines, Silent, choose_watcher


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
        "import sys; from tfbatch.progress import choose_watcher; "
        "print(type(choose_watcher(quiet=False, log_format='text')).__name__, 'rich' in sys.modules)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=tfbatch_env())
    assert done.stdout.split() == [Lines.__name__, "False"]
