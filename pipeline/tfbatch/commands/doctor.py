"""What this machine has for tfbatch: each device is tried by running a graph on it, not by asking for a list."""

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tfbatch import __version__
from tfbatch.batches import Array, Feeds
from tfbatch.bundles.tiny_graph import MICROSOFT, one_operator
from tfbatch.errors import TfbatchError, first_line
from tfbatch.host.machine import INT8, available_memory, available_threads, processor_flags, processor_name
from tfbatch.host.nvidia import driver_problem, find_gpus
from tfbatch.runtimes.device import BF16, find_device, open_session
from tfbatch.runtimes.onnxruntime_session import cuda_problem

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")
DEVICES = ("cpu", "openvino", "cuda")
TYPES = {"fp32": np.float32, "fp16": np.float16}
INSTRUCTIONS = {"int8": INT8, "bf16": BF16}  # which make these precisions of a processor's fast
WITHOUT = {
    "int8": "neither VNNI nor AMX is here: it is hardly faster than fp32, and for --device cpu alone",
    "bf16": "neither AVX512-BF16 nor AMX is here: it is refused",
}
DEBUG = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"  # has onnxruntime print `SdpaKernel=...` for each attention
CHILD = "from tfbatch.commands.doctor import compute_attention; compute_attention()"
LONGEST = 120  # seconds that CUDA's first start may take


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A device in a precision; `problem` says why it does not run, and what would help."""

    device: str
    precision: str
    problem: str | None


def examine() -> dict[str, Any]:
    """All facts, by name; `works` lists what ran."""
    trials = [try_device(device, precision) for device in DEVICES for precision in TYPES]
    on_cuda = any(trial.device == "cuda" and trial.problem is None for trial in trials)
    return {
        "tfbatch": __version__,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "processor": processor_name(),
        "instructions": instructions(processor_flags()),
        "threads": available_threads(),
        "memory": available_memory(),
        "gpus": [asdict(gpu) for gpu in find_gpus()],
        "driver_problem": driver_problem(0),
        "attention_kernel": attention_kernel() if on_cuda else None,
        "works": [f"{trial.device} {trial.precision}" for trial in trials if trial.problem is None],
        "problems": {f"{trial.device} {trial.precision}": trial.problem for trial in trials if trial.problem},
    }


def instructions(flags: set[str]) -> dict[str, list[str]]:
    """What an x86 processor has for each precision below fp32; of another nothing is known."""
    return {name: sorted(flags & which) for name, which in INSTRUCTIONS.items() if "sse2" in flags}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def try_device(name: str, precision: str) -> Trial:
    """Multiply two small matrices, and look at the product."""
    ones = np.ones((8, 8), TYPES[precision])
    feeds: dict[str, Array] = {"a": ones, "b": ones}
    try:
        problem = cuda_problem(0) if name == "cuda" else None
        if problem is None and not np.array_equal(
            compute(one_operator("MatMul", feeds), feeds, name, precision), 8 * ones
        ):
            problem = "it multiplies wrongly"
    except TfbatchError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 -- a runtime's own; whatever it is, it is what was looked for
        problem = f"it does not run: {first_line(error)}"
    return Trial(device=name, precision=precision, problem=problem)


def compute(graph: bytes, feeds: Feeds, device: str, precision: str) -> Any:
    """What a graph makes on a device, as a job would have it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tiny.onnx"
        path.write_bytes(graph)
        return open_session(path, find_device(device), precision).run(feeds)


def compute_attention(device: str = "cuda") -> Any:
    """A fused attention in half precision: 2 rows of 16 tokens, 64 wide, with row lengths as their mask."""
    feeds: dict[str, Array] = {
        "hidden": np.ones((2, 16, 64), np.float16),
        "weight": np.full((64, 192), 0.01, np.float16),
        "bias": np.zeros(192, np.float16),
        "lengths": np.array([16, 9], np.int32),
    }
    return compute(one_operator("Attention", feeds, domain=MICROSOFT, num_heads=1), feeds, device, "fp16")


def attention_kernel() -> str | None:
    """The kernel that onnxruntime takes for attention on the GPU; in a process of its own, since it is
    printed from within."""
    command = [sys.executable, "-c", CHILD]
    try:
        done = subprocess.run(
            command, env={**os.environ, DEBUG: "1"}, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    found = re.search(r"SdpaKernel=(\w+)", done.stdout + done.stderr)
    return found[1] if found else None


def describe(facts: dict[str, Any]) -> Iterator[str]:
    """The facts in a few lines; a problem that both precisions of a device have is one."""
    packages = [f"{name} {number}" for name, number in facts["packages"].items()] or ["no runtime"]
    yield f"tfbatch {facts['tfbatch']}, python {facts['python']}, {', '.join(packages)}"
    memory = "unknown memory" if facts["memory"] is None else f"{facts['memory'] / 2**30:.1f} GiB"
    yield f"{facts['processor']}: {facts['threads']} thread(s) and {memory} to use"
    for precision, found in facts["instructions"].items():
        yield f"{precision}: {', '.join(found) or WITHOUT[precision]}"
    for gpu in facts["gpus"]:
        yield f"{gpu['name']}, {gpu['memory'] / 2**30:.1f} GiB, driver {gpu['driver']}"
    for device in DEVICES:
        ways = [f"{device} {precision}" for precision in TYPES]
        if works := [way.split()[1] for way in ways if way in facts["works"]]:
            yield f"{device}: runs graphs in {' and '.join(works)}"
        for problem in dict.fromkeys(facts["problems"][way] for way in ways if way in facts["problems"]):
            yield f"{device}: {problem}"
    if (problem := facts["driver_problem"]) and not any(problem in other for other in facts["problems"].values()):
        yield f"cuda: {problem}"
    if facts["attention_kernel"]:
        yield f"cuda: attention in fp16 by {facts['attention_kernel']}"
