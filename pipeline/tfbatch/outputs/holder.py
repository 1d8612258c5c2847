"""Which process holds an output, in words, and whether it is still there."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BOOT = Path("/proc/sys/kernel/random/boot_id")


def describe() -> str:
    """This process, for whoever finds an output held."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {started}"


def mark() -> dict[str, Any]:
    """What `is_gone` needs to know of this process."""
    own = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "space": _space(), "process": own, "began": _began(own)}


def is_gone(holder: dict[str, Any]) -> bool:
    """Whether a process ran on this machine and does no more; of other machines' nothing is known."""
    here = mark()
    if here["boot"] is None or any(holder.get(name) != here[name] for name in ("host", "boot", "space")):
        return False
    return _began(holder.get("process")) != holder.get("began")


def _boot() -> str | None:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return None


def _space() -> str | None:
    """In which numbering of processes this one is: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 -- a name, not a path
    except OSError:
        return None


def _began(process: object) -> str | None:
    """When a process began, in ticks since the machine did; None where there is none of that number."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing more
