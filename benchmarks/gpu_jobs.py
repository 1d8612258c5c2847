"""Whole jobs on a GPU: from Parquet to Parquet, and from the same Parquet to PyTorch's logits."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tfbatch.machine import available_threads

from benchmarks.contenders._text import encode, load_tokenizer, pad, sorted_batches
from benchmarks.gpu_models import Case
from benchmarks.gpu_torch import load_torch, synchronise, tensors
from benchmarks.race import output_of
from benchmarks.workloads import HERE

BUDGET = 32_768  # tokens of a batch of PyTorch's job, as of tfbatch's


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


def text_job(case: Case, texts: list[str], device: str) -> dict[str, Any]:
    """A whole job of texts, and PyTorch, sorted and compiled, on the same file."""
    file = HERE / "data" / f"gpu-{len(texts)}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), file)
    done = whole_job(case, file, device)
    return {**done, "over_torch_compile": torch_job(case, file, device) * done["rows_per_second"] / len(texts)}


def whole_job(case: Case, file: Path, device: str) -> dict[str, Any]:
    """`tfbatch run` on a file, without the time the model takes to load."""
    output = HERE / "outputs" / "gpu"
    words = [sys.executable, "-m", "tfbatch", "run", file, "-m", case.bundle, "-o", output]
    with watched() as busy:
        done = output_of([*map(str, words), "--device", device, "--overwrite", "--quiet"])
    summary = json.loads(done.splitlines()[-1])
    work = summary["seconds"] - summary["waited_seconds"]["load"]
    rate = summary["rows"] / work
    return {
        "rows_per_second": rate,
        "rows_per_second_and_core": rate / available_threads(),
        "gpu_busy_percent": statistics.median(busy) if busy else None,
        "bottleneck": summary["bottleneck"],
        "busy_seconds": summary["busy_seconds"],
        "padding_ratio": summary["padding_ratio"],
    }


@torch.inference_mode()
def torch_job(case: Case, file: Path, device: str) -> float:
    """Seconds from Parquet to logits, the model loaded and warm."""
    model: Any = torch.compile(load_torch(case, device), dynamic=True)
    dtype, tokenizer = next(model.parameters()).dtype, load_tokenizer(case)
    warm = pad(encode(tokenizer, pq.read_table(file).slice(0, 64)))
    model(**tensors(warm, device, dtype))
    synchronise(device)
    started = time.perf_counter()
    ids = encode(tokenizer, pq.read_table(file))
    outputs = [
        model(**tensors(pad([ids[row] for row in batch]), device, dtype)).logits
        for batch in sorted_batches(ids, BUDGET)
    ]
    for output in outputs:
        output.float().cpu()
    return time.perf_counter() - started
