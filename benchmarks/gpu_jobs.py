"""Whole jobs on a GPU, from Parquet to Parquet, beside the session alone and PyTorch on the same texts."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tfbatch.batches import Feeds
from tfbatch.batching.cutting import cut
from tfbatch.host.machine import available_threads
from tfbatch.runtimes.device import find_device, open_session

from benchmarks import texts
from benchmarks.contenders._text import encode, load_tokenizer, pad, sorted_batches
from benchmarks.gpu_models import GRAPHS, Case
from benchmarks.gpu_torch import compile_layers, load_torch, pinned, synchronise, tensors
from benchmarks.race import output_of
from benchmarks.workloads import HERE

BUDGET = 32_768  # tokens of a batch of PyTorch's job, as of tfbatch's
EXACT, LENGTH = "length128", 128  # texts of so many tokens each
FIRST = 32_768  # rows of a job that the session alone and PyTorch are given
WARM = 2  # passes that are not counted


@contextmanager
def watched() -> Iterator[list[int]]:
    """How busy the GPU is, in percent, ten times a second; nothing where there is none to ask."""
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    found: list[int] = []
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield found
        return
    try:
        yield found
    finally:
        process.terminate()
        found += [int(line) for line in process.communicate()[0].split() if line.isdigit()]


def text_job(case: Case, name: str, rows: int, device: str) -> dict[str, Any]:
    """A whole job of so many texts; and of the first ones the session alone and, of several lengths, PyTorch, sorted
    and compiled."""
    file = text_file(case, name, rows)
    options = ["--max-length", str(LENGTH)] if name == EXACT else []
    done = whole_job(case, file, device, *options)
    first = encode(load_tokenizer(case), pq.read_table(file).slice(0, FIRST))
    ids = [each[:LENGTH] if name == EXACT else each for each in first]
    tokens = sum(map(len, ids)) / len(ids)
    found = {
        **done,
        "tokens_per_second": done["rows_per_second"] * tokens,
        "over_session": done["rows_per_second"] / session_rate(case, ids, device),
    }
    if name != EXACT:  # of one length the model alone is compared
        found["over_torch_compile"] = done["rows_per_second"] / torch_rate(case, ids, device)
    return found


def text_file(case: Case, name: str, rows: int) -> Path:
    """Reviews, texts of mixed lengths, or texts of LENGTH tokens at least, made once."""
    file = HERE / "data" / f"gpu-{name}-{rows}.parquet"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        sources = {"reviews": texts.reviews, "mixed": texts.mixed, EXACT: lambda: pieces(case)}
        pq.write_table(pa.table({"text": texts.extended(sources[name](), rows)}), file)
    return file


def pieces(case: Case) -> list[str]:
    """Documents in pieces of LENGTH tokens, special ones included."""
    tokenizer, inner, found = load_tokenizer(case), LENGTH - 2, list[str]()
    tokenizer.no_truncation()
    for text in texts.documents():
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        starts = range(0, len(offsets) - inner + 1, inner)
        found += [text[offsets[first][0] : offsets[first + inner - 1][1]] for first in starts]
    return found


def whole_job(case: Case, file: Path, device: str, *options: str) -> dict[str, Any]:
    """`tfbatch run` on a file, without the time the model takes to load."""
    output = HERE / "outputs" / "gpu"
    words = [sys.executable, "-m", "tfbatch", "run", file, "-m", case.bundle, "-o", output, *options]
    with watched() as busy:
        done = output_of([*map(str, words), "--device", device, "--overwrite", "--quiet"])
    summary = json.loads(done.splitlines()[-1])
    work = summary["seconds"] - summary["waited_seconds"]["load"]
    rate = summary["rows"] / work
    at_work = np.flatnonzero(busy)  # samples, of which those before the first and behind the last are not of the job
    return {
        "rows_per_second": rate,
        "rows_per_second_and_core": rate / available_threads(),
        "gpu_busy_percent": float(np.mean(busy[at_work[0] : at_work[-1] + 1])) if len(at_work) else None,
        "bottleneck": summary["bottleneck"],
        "busy_seconds": summary["busy_seconds"],
        "seconds": summary["seconds"],
        "padding_ratio": summary["padding_ratio"],
    }


def session_rate(case: Case, ids: list[Any], device: str) -> float:
    """Rows a second of the session alone, in batches that it is given as fast as it takes them."""
    found, lengths = find_device(device), np.array(list(map(len, ids)))
    batches = cut(lengths, np.zeros(len(ids), np.int64), found.batch_tokens, found.length_multiple)
    feeds: list[Feeds] = [dict(pad([ids[row] for row in batch.inputs], batch.length)) for batch in batches]
    precision = "fp32" if device == "cpu" else "fp16"
    callers = found.callers(available_threads())
    session = open_session(case.bundle / GRAPHS[precision], found, precision, callers)
    with ThreadPoolExecutor(callers) as pool:
        seconds = []
        for _ in range(WARM + 1):  # kernels are compiled for each shape and thread at first
            started = time.perf_counter()
            list(pool.map(session.run, feeds))
            seconds.append(time.perf_counter() - started)
    return len(ids) / seconds[-1]


@torch.inference_mode()
def torch_rate(case: Case, ids: list[Any], device: str) -> float:
    """Rows a second from token ids to logits, the model loaded, compiled and warm."""
    model = load_torch(case, device)
    compile_layers(model, dynamic=True)
    dtype = next(model.parameters()).dtype
    batches = list(sorted_batches(ids, BUDGET))

    def compute(some: list[Any]) -> None:
        feeds = (pinned(pad([ids[row] for row in batch]), device) for batch in some)
        for output in [model(**tensors(batch, device, dtype)).logits for batch in feeds]:
            output.float().cpu()

    compute(batches[:: max(1, len(batches) // 4)])
    synchronise(device)
    started = time.perf_counter()
    compute(batches)
    return len(ids) / (time.perf_counter() - started)
