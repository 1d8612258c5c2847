"""`python -m benchmarks.gpu`: tfbatch on a GPU beside PyTorch, in fp16, and how far both are from the GPU's limit.

For each model and shape the same batches go, round by round, through the session that `tfbatch run`
opens, through PyTorch with sdpa and through `torch.compile`. The limit is a product of two large
matrices. Then whole jobs: `tfbatch run` on a file, and PyTorch from the same Parquet to its logits.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table
from tfbatch.batches import Feeds
from tfbatch.device import find_device, open_session
from tfbatch.doctor import DEBUG

from benchmarks.contenders._text import encode, load_tokenizer, pad, sorted_batches
from benchmarks.gpu_models import CASES, Case, Shape, make_bundle, make_checkpoint, make_feeds
from benchmarks.race import output_of
from benchmarks.texts import extended, mixed, reviews
from benchmarks.workloads import HERE

GEMM = 8192  # rows and columns of the matrices whose product is the limit
BUDGET = 32_768  # tokens of a batch of PyTorch's whole job, as of tfbatch's
CALLERS = 1  # as a job has
COLUMNS = (
    ("model, shape", "{name}"), ("tfbatch rows/s", "{tfbatch:,.0f}"), ("torch sdpa", "{torch:.2f}x"),
    ("torch.compile", "{compiled:.2f}x"), ("TFLOP/s", "{tflops:,.1f}"), ("of GEMM peak", "{share:.0%}"),
    ("attention kernels", "{kernels}"),
)  # fmt: skip
Pass = Callable[[], None]


def rate(compute: Pass, rows: int, seconds: float, device: str) -> float:
    """Rows a second of passes that take so many rows each, the first of which is not counted."""
    compute()
    synchronise(device)
    passes, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        compute()
        passes += 1
    synchronise(device)
    return passes * rows / (time.perf_counter() - started)


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def by_session(graph: Path, feeds: list[Feeds], device: str, precision: str) -> Pass:
    """All batches through tfbatch's session, by as many callers as a job has."""
    session = open_session(graph, find_device(device), precision, CALLERS)
    pool = ThreadPoolExecutor(CALLERS)

    def compute() -> None:
        for _ in pool.map(session.run, feeds):
            pass

    return compute


def by_torch(case: Case, feeds: list[Feeds], device: str, *, compiled: bool) -> Pass:
    """All batches through PyTorch, from arrays to arrays: copied from pinned memory while others are computed."""
    model: Any = load_torch(case, device)
    if compiled:
        model = torch.compile(model)
    dtype = next(model.parameters()).dtype

    def compute() -> None:
        inputs = (tensors(batch, device, dtype) for batch in feeds)
        outputs = [model(**each).logits if case.is_text else case.family.reference(model, each) for each in inputs]
        for output in outputs:
            output.float().cpu().numpy()

    return torch.inference_mode()(compute)


def load_torch(case: Case, device: str) -> Any:
    dtype = torch.float32 if device == "cpu" else torch.float16
    sdpa = {"attn_implementation": "sdpa"} if case.family.attention else {}  # else the model has only its own
    model = case.model_class().from_pretrained(case.checkpoint, dtype=dtype, **sdpa)
    return model.eval().to(device)


def tensors(feeds: Feeds, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found = {}
    for name, array in feeds.items():
        if name == "attention_mask" and array.all():
            continue  # without a mask sdpa takes its fastest kernel
        tensor = torch.from_numpy(array)
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found[name] = tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
    return found


def operations(case: Case, feeds: Feeds) -> float:
    """Multiplications and additions of a row, as PyTorch counts those of its products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    eager = {"attn_implementation": "eager"} if case.family.attention else {}
    model = case.model_class().from_pretrained(case.checkpoint, **eager).eval()
    inputs = {name: torch.from_numpy(array) for name, array in feeds.items()}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs) if case.is_text else case.family.reference(model, inputs)
    return float(counter.get_total_flops()) / len(feeds[case.family.inputs[0]])


def gemm_peak(device: str, size: int, seconds: float) -> float:
    """Operations a second of the product of two square matrices."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return rate(lambda: torch.matmul(left, right), 1, seconds, device) * 2 * size**3


def kernels(graph: Path, feeds: Feeds, device: str, precision: str) -> list[str]:
    """The kernels that onnxruntime takes for attention, which it prints from within: in a process of its own."""
    if device == "cpu":
        return ["-"]
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "feeds.npz", **feeds)
        program = (
            "import sys, numpy, pathlib; from tfbatch.device import find_device, open_session; "
            "graph, feeds, device, precision = sys.argv[1:]; "
            "open_session(pathlib.Path(graph), find_device(device), precision).run(dict(numpy.load(feeds)))"
        )
        words = [sys.executable, "-c", program, str(graph), f"{scratch}/feeds.npz", device, precision]
        done = subprocess.run(words, env={**os.environ, DEBUG: "1"}, capture_output=True, text=True, check=True)
    return sorted(set(re.findall(r"SdpaKernel=(\w+)", done.stdout + done.stderr))) or ["unknown"]


def measure(case: Case, shape: Shape, device: str, seconds: float, rounds: int, peak: float) -> dict[str, Any]:
    """One row of the table: medians of interleaved rounds; ratios are tfbatch's rate over the other's."""
    precision = "fp32" if device == "cpu" else "fp16"
    graph = case.bundle / ("model.onnx" if device == "cpu" else "model_fp16.onnx")
    feeds = make_feeds(case, shape)
    ways = {
        "tfbatch": by_session(graph, feeds, device, precision),
        "torch": by_torch(case, feeds, device, compiled=False),
        "compiled": by_torch(case, feeds, device, compiled=True),
    }
    rows = sum(len(next(iter(batch.values()))) for batch in feeds)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, compute in ways.items():
            found[name].append(rate(compute, rows, seconds, device))
    ours = statistics.median(found["tfbatch"])
    flops = ours * statistics.mean(operations(case, batch) for batch in feeds)
    return {
        "name": f"{case.name} {shape.name}",
        "tfbatch": ours,
        **{name: ours / statistics.median(rates) for name, rates in found.items() if name != "tfbatch"},
        "tflops": flops / 1e12,
        "share": flops / peak,
        "kernels": ", ".join(kernels(graph, feeds[0], device, precision)),
    }


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


def whole_job(case: Case, texts: list[str], device: str) -> dict[str, Any]:
    """`tfbatch run` on a file of texts, and PyTorch, sorted and compiled, on the same file."""
    file, output = HERE / "data" / f"gpu-{len(texts)}.parquet", HERE / "outputs" / "gpu"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), file)
    words = [sys.executable, "-m", "tfbatch", "run", file, "-m", case.bundle, "-o", output]
    with watched() as busy:
        done = output_of([*map(str, words), "--device", device, "--overwrite", "--quiet"])
    summary = json.loads(done.splitlines()[-1])
    work = summary["seconds"] - summary["waited_seconds"]["load"]
    return {
        "rows_per_second": len(texts) / work,
        "over_torch_compile": torch_job(case, file, device) / work,
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


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cpu tries out whether all of it runs, in fp32.")
@click.option("--models", default=",".join(CASES), help="Some of them, with commas between.", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Of each measurement.")
@click.option("--rows", type=click.IntRange(min=1), default=200_000, show_default=True, help="Of the whole job.")
@click.option("--budget", type=click.IntRange(min=1), default=BUDGET, show_default=True, help="Tokens of a batch.")
def main(device: str, models: str, rounds: int, seconds: float, rows: int, budget: int) -> None:
    """Measure models alone, then whole jobs of the first one that reads texts."""
    cases = [CASES[name] for name in models.split(",")]
    peak = gemm_peak(device, GEMM if device != "cpu" else 1024, seconds)
    found = []
    for case in cases:
        make_checkpoint(case)
        make_bundle(case, device)
        found += [measure(case, shape, device, seconds, rounds, peak) for shape in case.shapes(budget)]
    table = Table(
        title=f"{torch.cuda.get_device_name() if device != 'cpu' else 'processor'}, {peak / 1e12:,.1f} TFLOP/s"
    )
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for row in found:
        table.add_row(*(shown.format(**row) for _, shown in COLUMNS))
    Console(stderr=True).print(table)
    jobs = {}
    if texts := next((case for case in cases if case.is_text), None):
        jobs = {
            name: whole_job(texts, extended(source(), rows), device)
            for name, source in (("reviews", reviews), ("mixed", mixed))
        }
    print(json.dumps({"gemm_tflops": peak / 1e12, "models": found, "jobs": jobs}))


if __name__ == "__main__":
    main()
