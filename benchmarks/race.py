"""Runs contenders in fresh processes, and measures each from outside."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import load_contender
from benchmarks.venvs import python_of
from benchmarks.workloads import HERE, ROOT, Workload

OUTPUT_OF_A_FAILURE = 2_000  # characters shown


class ContenderFailed(Exception):
    """A contender ended with another exit code than 0; its last words are the message."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run took: the whole process, and the work once the model was loaded."""

    whole: float
    work: float
    peak_memory: int
    versions: dict[str, str]


def environment(threads: int) -> dict[str, str]:
    """As many threads for everyone, whatever library counts them, and no network."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TFBATCH_")},
        **dict.fromkeys(counts, str(threads)),
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }


def prepare(name: str, workload: Workload, threads: int) -> None:
    """Make a contender's environment, and let it convert the model if it wants to."""
    contender = load_contender(name)
    python_of(contender.VENV)
    for shared in filter(None, (getattr(contender, "NEEDS", None), getattr(contender, "PREPARED", name))):
        converter = load_contender(shared)
        if hasattr(converter, "prepare"):
            command = [python_of(converter.VENV), "-m", "benchmarks.runner", shared, workload.name, "--prepare"]
            output_of([*map(str, command), "--threads", str(threads)], threads)


def run(name: str, workload: Workload, file: Path, threads: int) -> tuple[Run, Path]:
    """One run, and where its output is."""
    contender = load_contender(name)
    output = HERE / "outputs" / f"{file.stem}-{name}"
    remove(output)
    is_tfbatch = hasattr(contender, "ARGUMENTS")
    command = tfbatch(contender.ARGUMENTS, workload, file, output, threads) if is_tfbatch else [
        str(python_of(contender.VENV)), "-m", "benchmarks.runner", name, workload.name, str(file), str(output),
        "--threads", str(threads),
    ]  # fmt: skip
    started = time.perf_counter()
    found = json.loads(output_of(command, threads).splitlines()[-1])
    whole = time.perf_counter() - started
    return Run(
        whole=whole,
        work=found["seconds"] - (found["waited_seconds"]["load"] if is_tfbatch else 0),
        peak_memory=found["peak_memory_bytes"],
        versions=found.get("versions") or own_versions(),
    ), output


def tfbatch(arguments: tuple[str, ...], workload: Workload, file: Path, output: Path, threads: int) -> list[str]:
    """The command as a user types it."""
    mask = ("--mask-column", "mask") if workload.kind == "inpaint" else ()
    command = (sys.executable, "-m", "tfbatch", "run", file, "--bundle", workload.model.bundle, "--output", output)
    column = ("--input-column", workload.column)
    return [*map(str, command), *column, "--threads", str(threads), "--quiet", *mask, *arguments]


def own_versions() -> dict[str, str]:
    from benchmarks.runner import versions

    return {name: version for name, version in versions().items() if name in ("onnxruntime", "openvino", "tokenizers")}


def output_of(command: list[str], threads: int = 2) -> str:
    """What a command says on standard output.

    Raises:
        ContenderFailed: it failed.
    """
    environ = environment(threads)
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-OUTPUT_OF_A_FAILURE:]
        raise ContenderFailed(f"exit code {done.returncode}: {' '.join(command)}\n{said}")
    return done.stdout


def remove(output: Path) -> None:
    """Remove an earlier output; only ever below `build/benchmarks/outputs`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in (output, output.with_name(f"{output.name}.loaded")):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
