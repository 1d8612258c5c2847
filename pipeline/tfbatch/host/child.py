"""Processes that this one starts to do a part of its work, from this very package."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
# By its place: another version may be earlier on the path. What it needs may be beside it, and comes last: a file of
# the working directory is no module of ours.
PROGRAM = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
sys.path.append({beside!r})
spec = spec_from_file_location({name!r}, {folder!r} + "/__init__.py", submodule_search_locations=[{folder!r}])
sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from {name}.{module} import main
main()
"""
FOR_THE_JOB = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # which lets its processes go
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


def start_child(
    module: str, *descriptors: int, keep: list[int] | None = None, env: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start `main` of a module with the numbers of open files; it has those that it is to `keep` open too.

    `env` is added to this process' environment, `streams` are Popen's; its standard input and output
    are nowhere, unless these say otherwise.
    """
    program = PROGRAM.format(name=PACKAGE.name, folder=str(PACKAGE), beside=str(PACKAGE.parent), module=module)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, *map(str, descriptors)],
        pass_fds=[*descriptors, *(keep or [])],
        env={**os.environ, **(env or {})},
        start_new_session=True,  # ^C is for the job, which lets its processes go
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
    )


def ending(status: int) -> str:
    """How a process ended, by its exit status."""
    if status == -signal.SIGKILL:
        return "was killed, perhaps for the memory it took"
    if status < 0:
        name = {number.value: number.name for number in signal.Signals}.get(-status, f"signal {-status}")
        return f"{'crashed' if -status in CRASHES else 'was ended'} ({name})"
    return f"ended with exit code {status}"
