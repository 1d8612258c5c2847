"""Small jobs with an end that is known, and all that must hold of an output on the way there."""

import json
import re
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Finished, write_reviews
from pictures import png, scene
from tfbatch.host.hashes import sha256

from faults.runs import Running, Server

MARK = "zebrafinch"  # stands in every cell, and may be read nowhere else
NULL_EVERY = 7  # rows
PART = re.compile(r"part-\d{5}-(\d{10})-(\d{10})-[0-9a-f]{8}-[0-9a-f]{8}")
METRIC = re.compile(r'^tfbatch_(\w+)\{run="run"\} (\S+)$', re.MULTILINE)
OF_THIS_RUN = {"lock", "_SUCCESS", "joined.json"}  # hold times, processes, inodes
SHEET = "contact_sheet.png"  # is of the run that scores the last rows, and of none where that one is killed after them


@dataclass(frozen=True, kw_only=True)
class Job:
    """The words of its command line but for the output, and what is there at its end."""

    words: tuple[object, ...]
    output: str = "out"
    whole: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A job's output in a folder of its own, and the runs that make it."""

    server: Server
    job: Job
    folder: Path
    log_format: str = "text"

    @property
    def out(self) -> Path:
        return self.folder / self.job.output

    @property
    def root(self) -> Path:
        return root_of(self.out)

    def hold(self, *more: object) -> Running:
        self.folder.mkdir(parents=True, exist_ok=True)
        reports = ("--metrics-file", self.folder / "run.prom", "--log-format", self.log_format)
        return self.server.hold("run", *self.job.words, "-o", self.out, *reports, *more)

    def start(self, *more: object) -> Running:
        return self.hold(*more).go()

    def end(self, running: Running) -> Finished:
        """Wait for a run; what it tells in four places must be the same."""
        done = running.wait()
        check_reports(done, self.folder / "run.prom", self.log_format)
        return done

    def run(self, *more: object) -> Finished:
        return self.end(self.start(*more))

    def finish(self, *more: object) -> None:
        """Go on to the end, which must be that of a run that nothing happened to."""
        done = self.run(*more)
        assert done.code == 0, done
        assert contents(self.out) == self.job.whole


def make_job(server: Server, folder: Path, output: str, *words: object) -> Job:
    """Let a job come to its end undisturbed, twice, which says that its end is known."""
    job = Job(words=words, output=output, whole={})
    ends = []
    for name in ("once", "twice"):
        trial = Trial(server=server, job=job, folder=folder / name)
        assert trial.run().code == 0
        ends.append(contents(trial.out))
        shutil.rmtree(trial.folder)
    assert ends[0] == ends[1]
    return replace(job, whole=ends[0])


def write_texts(path: Path, rows: int, *, row_group: int = 20) -> Path:
    """Reviews, every one marked but for some that are null."""
    table = pq.read_table(write_reviews(path, rows))
    texts = [None if row % NULL_EVERY == 3 else f"{MARK} {text}" for row, text in enumerate(table["text"].to_pylist())]
    pq.write_table(table.set_column(1, "text", pa.array(texts, pa.string())), path, row_group_size=row_group)
    return path


def write_pictures(path: Path, rows: int) -> Path:
    """Pictures with marked names; one is broken."""
    cells = [png(scene(row, (32, 32))) for row in range(rows)]
    cells[1] = MARK.encode()
    pq.write_table(pa.table({"image": cells, "name": [f"{MARK} {row}" for row in range(rows)]}), path)
    return path


def root_of(out: Path) -> Path:
    """The folder that parts and records lie in."""
    return out.with_name(out.name + ".tfbatch") if out.suffix == ".parquet" else out


def contents(out: Path) -> dict[str, str]:
    """Every file of an output with its hash, but for what holds times and the like; all but the contact sheet."""
    files = [file for file in (out, *root_of(out).rglob("*")) if file.is_file() and file.name != SHEET]
    return {
        str(file.relative_to(out.parent)): "" if file.name in OF_THIS_RUN else sha256(file) for file in sorted(files)
    }


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All of a folder, to see that it is left alone: bytes, times, inodes, modes."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))) if folder.exists() else ():
        status = path.lstat()
        content = sha256(path) if stat.S_ISREG(status.st_mode) else None
        found[str(path)] = (content, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_mode)
    return found


def rows_of(part: Path) -> int:
    """How many rows a part's name says it has."""
    named = PART.match(part.name)
    assert named, part
    return int(named[2]) - int(named[1]) + 1


def visible_parts(root: Path) -> list[Path]:
    """Parts that have their names."""
    return [part for part in sorted(root.rglob("part-*.parquet")) if "_tfbatch" not in part.parts]


def check_part(part: Path) -> None:
    """A part that can be seen is whole."""
    assert pq.read_metadata(part).num_rows == rows_of(part), part


def check_output(trial: Trial) -> None:
    """What a run leaves, however it ended: whole parts, and records of parts that are there."""
    for part in visible_parts(trial.root):
        assert pq.read_table(part, partitioning=None).num_rows == rows_of(part), part
    for path in (trial.root / "_tfbatch" / "done").glob("part-*.json"):
        record = json.loads(path.read_bytes())
        if not trial.out.is_file():  # else they have been joined
            assert sha256(trial.root / record["part"]) == record["sha256"]


def check_reports(done: Finished, metrics: Path, log_format: str) -> None:
    """Exit code, last line, metrics and log say the same, and nothing of a cell."""
    told = done.out + done.err + (metrics.read_text() if metrics.exists() else "")
    assert MARK not in told
    assert "Traceback" not in told
    if done.code < 0:
        return  # killed, without a last word
    result = done.result
    assert (result["exit_code"], result["status"] == "failed") == (done.code, done.code != 0), done
    measured = {name: float(value) for name, value in METRIC.findall(metrics.read_text())}
    assert measured["success"] == (done.code == 0)
    for metric, name in (("exit_code", "exit_code"), ("rows", "rows"), ("row_errors", "errors"), ("parts", "parts")):
        assert measured[metric] == result[name], metric
    if log_format == "json":
        logged = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
        said = [(entry["exit_code"], entry["message"]) for entry in logged if entry["level"] == "error"]
        assert said == ([(done.code, result["reason"])] if done.code else [])
    else:
        assert done.err.count("tfbatch: ") == (done.code != 0 or result["errors"] > 0), done.err
        assert done.err.endswith(f"tfbatch: {result['reason']}\n" if done.code else done.err)
