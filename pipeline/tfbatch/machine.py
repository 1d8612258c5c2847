"""What this process may use of the machine, and what it has used."""

import ctypes
import math
import os
import platform
import resource
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
KEPT = 16 << 20  # bytes
LARGE = 1 << 20  # bytes from which on a block is in no heap
LARGE_IN_SHARED = 1 << 18  # the same where all threads have one heap
INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}  # instructions that multiply 8 bits, as Linux names them
SHARE_HEAP = 2  # processors that one heap is enough for


def available_threads() -> int:
    """Processors this process may keep busy: affinity and cgroup quota, which onnxruntime ignores."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, cgroup_quota(CGROUP) or allowed))


def limit_threads(threads: int) -> None:
    """Hold the thread pools of tokenizers and Arrow to a number; before their first use."""
    import pyarrow as pa

    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    pa.set_cpu_count(threads)


class NoPandas:
    """Finds no package of that name; for all others the next finder is asked."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def do_without_pandas() -> None:
    """Have Arrow's only look for pandas be in vain: it looks when it is given its first value, to know pandas'
    own from others, and importing it takes as long as loading a model."""
    import pyarrow as pa

    sys.meta_path.insert(0, NoPandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(NoPandas)


def settle_heap(large: int | None = None) -> None:
    """Have glibc give large blocks back when they are freed, and on a small machine keep one heap, Arrow's too.

    A block is large from LARGE bytes on, with one heap from LARGE_IN_SHARED on, or from `large` on.

    Left alone it learns to keep blocks of up to 32 MB, in a heap for each thread, and pictures of all sizes
    leave those full of holes. One is enough for two processors. From it the outputs of batches, a few hundred
    kilobytes of all sizes, are kept out too, or what is small comes to lie in their holes, and the heap grows by a
    third. With more its threads would wait for one another: sixteen thirty times as long as they work, and with as
    many heaps as processors, some of which threads then share, still a third longer. What small blocks take is kept,
    up to KEPT: to give it back and take it again costs a third of the time. Arrow, imported from here on or in a
    child of this process, would keep memory of its own; whoever has chosen its pool keeps that.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        shares = available_threads() <= SHARE_HEAP
        mallopt(M_MMAP_THRESHOLD, large or (LARGE_IN_SHARED if shares else LARGE))
        mallopt(M_TRIM_THRESHOLD, KEPT)
        if shares:
            mallopt(M_ARENA_MAX, 1)


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
