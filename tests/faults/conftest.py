"""Places and jobs of the fault tests. On a disk that is memory, where syncing takes no time."""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from faults.jobs import Job, Trial, make_job, write_pictures, write_texts
from faults.runs import Server, serving
from faults.system_calls import can_trace


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where there is such a thing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="faults-", dir=shared if os.access(shared, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def place(memory: Path) -> Iterator[Path]:
    """A folder of this test's own."""
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def server(memory: Path) -> Iterator[Server]:
    (memory / "runs").mkdir()
    with serving(memory / "runs") as server:
        yield server


@pytest.fixture(scope="session")
def strace(server: Server) -> None:
    """Skips where strace is missing or not allowed."""
    if not can_trace(server.hold("--version")):
        pytest.skip("strace is not installed or may not look at processes here")


@pytest.fixture(scope="session")
def make(
    server: Server, memory: Path, text_bundle: Path, picture_model: Callable[[str], tuple[Path, Path]]
) -> Callable[[str, int], Job]:
    """A job by its kind and the rows of a part: 60 texts to a folder or a file, 6 pictures to files."""
    texts = write_texts(memory / "texts.parquet", 60)
    pictures = write_pictures(memory / "pictures.parquet", 6)

    @cache
    def make(kind: str, rows: int) -> Job:
        place, parts = memory / f"{kind}-{rows}", ("--rows-per-part", rows)
        if kind == "pictures":
            model = ("-m", picture_model("vit")[1], "--images", "files", "--contact-sheet", 2)
            return make_job(server, place, "out", pictures, *model, *parts)
        return make_job(server, place, "out" if kind == "folder" else "out.parquet", texts, "-m", text_bundle, *parts)

    return make


@pytest.fixture
def trial(server: Server, make: Callable[[str, int], Job], place: Path) -> Trial:
    """Six parts of ten texts, in a folder."""
    return Trial(server=server, job=make("folder", 10), folder=place)
