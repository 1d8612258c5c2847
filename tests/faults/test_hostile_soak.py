"""Thousands of small files in one job: what is opened is closed, and what is taken is given back."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS, tfbatch_env

pytestmark = pytest.mark.faults

FILES, ROWS = 3000, 3
SECONDS_BETWEEN = 0.2
DRIFT = 1.05


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment: bytes of memory, file descriptors, threads."""

    memory: int
    descriptors: int
    threads: int


def sample(process: int) -> Sample:
    status = Path(f"/proc/{process}/status").read_text()
    memory, threads = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmRSS", "Threads"))
    return Sample(memory * 1024, len(list(Path(f"/proc/{process}/fd").iterdir())), threads)


def samples(running: subprocess.Popen[str], output: Path) -> Iterator[Sample]:
    """From the first finished part on, until the process ends."""
    while running.poll() is None:
        if (output / "_tfbatch" / "done").is_dir() and any((output / "_tfbatch" / "done").iterdir()):
            try:
                yield sample(running.pid)
            except (OSError, IndexError):
                return  # it ended meanwhile
        time.sleep(SECONDS_BETWEEN)


def test_three_thousand_files_leave_memory_descriptors_and_threads_as_they_were(
    text_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(FILES):
        texts = [" ".join(WORDS[(index + row) % 14 : (index + row) % 14 + 1 + index % 5]) for row in range(ROWS)]
        pq.write_table(pa.table({"id": range(index, index + ROWS), "text": texts}), folder / f"{index:05d}.parquet")
    words = ["run", folder, "-m", text_bundle, "-o", tmp_path / "out", "--threads", "2", "--quiet"]
    command = [sys.executable, "-m", "tfbatch.cli", *map(str, words)]
    started = time.monotonic()
    with subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.PIPE, text=True) as running:
        found = list(samples(running, tmp_path / "out"))
        out = running.stdout.read() if running.stdout else ""
    assert running.returncode == 0
    result = json.loads(out.splitlines()[-1])
    assert (result["rows"], result["errors"], result["parts"]) == (FILES * ROWS, 0, FILES)
    assert len(found) >= 30
    third = len(found) // 3
    first, last = found[1 : 1 + third], found[-third:]
    memory = [sum(each.memory for each in part) / len(part) for part in (first, last)]
    descriptors = [median(each.descriptors for each in part) for part in (first, last)]  # some are open for a moment
    threads = [median(each.threads for each in part) for part in (first, last)]
    print(
        f"{time.monotonic() - started:.0f} s, {len(found)} samples; memory {memory[0] / 1e6:.1f} to "
        f"{memory[1] / 1e6:.1f} MB ({memory[1] / memory[0] - 1:+.1%}); descriptors {descriptors}; threads {threads}"
    )
    assert memory[1] <= DRIFT * memory[0]
    assert descriptors[1] <= descriptors[0]
    assert threads[1] <= threads[0]
