"""The power goes: what was recorded is on the disk, and what is on the disk is whole.

The disk is an ext4 file system in a file. A cut is a copy of that file while the job stands still:
it has what the file system had written, and not what it still held in memory. It is mounted to lose
as much as it may: data is not written before its name, and the journal only where somebody syncs.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.jobs import Job, Trial, check_output, visible_parts
from faults.mounts import mounted
from faults.runs import Running, Server

pytestmark = pytest.mark.faults
CUTS = 20
PARTS = 20
SIZE = 32 << 20
WORST = "loop,data=writeback,noauto_da_alloc,commit=300"
USUAL = "loop,commit=300"


def test_after_a_power_cut_no_recorded_part_is_lost_or_torn_and_the_job_goes_on(
    make: Callable[[str, int], Job], server: Server, place: Path
) -> None:
    job = make("folder", 60 // PARTS)
    moments = random.Random(0)
    found = []
    for number in range(CUTS):
        folder = place / str(number)
        with mounted(folder / "disk", "-o", (WORST, USUAL)[number % 2], new_disk(folder / "image")) as disk:
            before = Trial(server=server, job=job, folder=disk / "trial")
            running = before.start()
            least = moments.randrange(PARTS)
            while len(records(before)) < least:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.02))
            stand_still(running)
            recorded = records(before)
            shutil.copyfile(folder / "image", folder / "copy")
            running.kill()
        with mounted(folder / "after", "-o", "loop", folder / "copy") as disk:
            after = Trial(server=server, job=job, folder=disk / "trial")
            check_output(after)
            assert len(recorded - records(after)) <= 1  # one may not yet have been synced
            assert {part.name for part in visible_parts(after.root)} >= {name[:-5] for name in records(after)}
            found.append(len(records(after)))
            after.finish()
        shutil.rmtree(folder)
    print(f"parts recorded at {CUTS} cuts: {found}")
    assert sum(0 < parts < PARTS for parts in found) >= CUTS // 2


def new_disk(image: Path) -> Path:
    image.parent.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return image


def stand_still(running: Running) -> None:
    """Stop a run, and wait until it has: it may be in the middle of a system call."""
    running.send(signal.SIGSTOP)
    while not {"State:\tT", "State:\tZ"} & {line[:8] for line in status(running)}:
        time.sleep(0.001)


def status(running: Running) -> list[str]:
    try:
        return Path(f"/proc/{running.pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ["State:\tZ"]


def records(trial: Trial) -> set[str]:
    return {path.name for path in (trial.root / "_tfbatch" / "done").glob("part-*.json")}
