"""A terminal gets a bar, everything else a line now and then."""

import io
import subprocess
import sys

import pytest
from tfbatch.progress import JsonLines, Lines, Silent, choose_watcher


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
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


def test_a_file_gets_lines_and_what_draws_bars_is_not_even_imported() -> None:
    program = (
        "import sys; from tfbatch.progress import choose_watcher; "
        "print(type(choose_watcher(quiet=False, log_format='text')).__name__, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [Lines.__name__, "False"]
