"""What this process may use of the machine, and what it has used of it."""

import math
import os
import platform
import resource
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}  # instructions that multiply 8 bits, as Linux names them


def available_threads() -> int:
    """Processors this process may keep busy: affinity and cgroup quota, which onnxruntime ignores."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, cgroup_quota(CGROUP) or allowed))


def cgroup_quota(root: Path) -> int | None:
    """Processors granted by the CPU quota of a cgroup (version 2, then 1), rounded up; None: no quota."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0:
        return None
    return math.ceil(int(quota) / int(period))


def processor_flags() -> set[str]:
    """What instructions the processor has, by Linux' names; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return set(flags.partition(":")[2].split())


def is_overflowing(flags: set[str]) -> bool:
    """Whether a processor of these instructions adds products of 8 bits up in 16, as x86 does without any for it."""
    return "sse2" in flags and not flags & INT8


def processor_name() -> str:
    """The model, as Linux names it; elsewhere the kind."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    line = next((line for line in text.splitlines() if line.startswith("model name")), "")
    return line.partition(":")[2].strip() or platform.machine()


def available_memory(root: Path = CGROUP) -> int | None:
    """Bytes this process may use: the machine's, or what its cgroup (version 2, then 1) is held to; None:
    the system does not say."""
    limits = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((root / name).read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return min(limits, default=None)


def peak_memory() -> int:
    """The most memory this process has held at once, in bytes.

    VmHWM where there is one: `ru_maxrss` starts from that of the process that started this one.
    """
    if peak := peak_memory_of("self"):
        return peak
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_memory_of(process: int | str) -> int:
    """The most memory a process has held at once, in bytes; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0
