"""`python -m benchmarks.gpu`: tfbatch on a GPU beside PyTorch, in fp16, and how far both are from the GPU's limit.

For each model and shape the same batches go, round by round, through the session that `tfbatch run`
opens, through PyTorch with sdpa and through `torch.compile` layer by layer, its fastest way; with all three
one batch follows another without a gap, as in a job. The limit is a product of two large matrices. Then
whole jobs: `tfbatch run` on files of texts and of photographs, and PyTorch from the same token ids to its
logits.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tfbatch.batches import Feeds, arrays
from tfbatch.commands.doctor import DEBUG
from tfbatch.host.machine import available_threads
from tfbatch.runtimes.device import find_device, open_session

from benchmarks.data import input_of
from benchmarks.gpu_jobs import BUDGET, EXACT, text_job, whole_job
from benchmarks.gpu_models import BATCHES, CASES, GRAPHS, SHAPES, Case, Shape, make_bundle, make_checkpoint, make_feeds
from benchmarks.gpu_tables import show, show_jobs
from benchmarks.gpu_torch import Flow, by_torch, synchronise
from benchmarks.workloads import BY_NAME

PHOTOGRAPHS = "photos500"
JOBS = (EXACT, "mixed", "reviews", PHOTOGRAPHS)
WARM = 3  # times round
GEMM = 8192  # rows and columns of the matrices whose product is the limit


def rate(flow: Flow, rows: int, seconds: float, device: str) -> float:
    """Rows a second of batches that follow one another for that long, so many rows each time round. The first times
    round are not counted: both runtimes compile then, tfbatch's attention once for each thread."""
    flow(WARM)
    synchronise(device)
    once = timed(flow, 1, device)
    rounds = max(1, round(seconds / once))
    return rounds * rows / timed(flow, rounds, device)


def timed(flow: Flow, rounds: int, device: str) -> float:
    started = time.perf_counter()
    flow(rounds)
    synchronise(device)
    return time.perf_counter() - started


def by_session(graph: Path, feeds: list[Feeds], device: str, precision: str) -> Flow:
    """All batches through tfbatch's session, by as many callers as a job has."""
    found = find_device(device)
    callers = found.callers(available_threads())
    session, pool = open_session(graph, found, precision, callers), ThreadPoolExecutor(callers)

    def flow(rounds: int) -> None:
        for _ in pool.map(session.run, feeds * rounds):
            pass

    return flow


def operations(case: Case, feeds: Feeds) -> float:
    """Multiplications and additions of a row, as PyTorch counts those of the whole model's products and convolutions:
    what tfbatch leaves out of a last layer is counted too. Nothing is computed: tensors have shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig

    eager = {"attn_implementation": "eager"} if case.family.attention else {}
    with torch.device("meta"):
        model = case.model_class()._from_config(AutoConfig.from_pretrained(case.checkpoint), **eager).eval()
    inputs = {name: torch.from_numpy(array).to("meta") for name, array in arrays(feeds).items()}
    inputs.pop("attention_mask", None)  # whether it hides something would be looked up
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs) if case.is_text else case.family.reference(model, inputs)
    return float(counter.get_total_flops()) / len(feeds[case.family.inputs[0]])


def gemm_peak(device: str, size: int, seconds: float) -> float:
    """Operations a second of the product of two square matrices."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))

    def flow(rounds: int) -> None:
        for _ in range(rounds):
            torch.matmul(left, right)

    return rate(flow, 1, seconds, device) * 2 * size**3


def kernels(graph: Path, feeds: Feeds, device: str, precision: str) -> list[str]:
    """The kernels that onnxruntime takes for attention, which it prints from within: in a process of its own."""
    if device == "cpu":
        return ["-"]
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "feeds.npz", **feeds)
        program = (
            "import sys, numpy, pathlib; from tfbatch.runtimes.device import find_device, open_session; "
            "graph, feeds, device, precision = sys.argv[1:]; "
            "open_session(pathlib.Path(graph), find_device(device), precision).run(dict(numpy.load(feeds)))"
        )
        words = [sys.executable, "-c", program, str(graph), f"{scratch}/feeds.npz", device, precision]
        done = subprocess.run(words, env={**os.environ, DEBUG: "1"}, capture_output=True, text=True, check=True)
    return sorted(set(re.findall(r"SdpaKernel=(\w+)", done.stdout + done.stderr))) or ["unknown"]


def measure(case: Case, shape: Shape, device: str, seconds: float, rounds: int, peak: float) -> dict[str, Any]:
    """One row of the table: medians of interleaved rounds; ratios are tfbatch's rate over the other's."""
    precision = "fp32" if device == "cpu" else "fp16"
    graph = case.bundle / GRAPHS[precision]
    feeds = make_feeds(case, shape)
    ways = {
        "tfbatch": by_session(graph, feeds, device, precision),
        "torch": by_torch(case, feeds, device, compiled=False),
        "compiled": by_torch(case, feeds, device, compiled=True),
    }
    rows = sum(size for size, _ in shape.batches)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, flow in ways.items():
            found[name].append(rate(flow, rows, seconds, device))
    ours = statistics.median(found["tfbatch"])
    sizes = [size for size, _ in shape.batches]
    flops = ours * float(np.average([operations(case, batch) for batch in feeds], weights=sizes))
    return {
        "name": f"{case.name} {shape.name}" if case.is_text else f"{case.name} {rows // BATCHES} pictures",
        "tfbatch": ours,
        **{name: ours / statistics.median(rates) for name, rates in found.items() if name != "tfbatch"},
        "tflops": flops / 1e12,
        "share": flops / peak,
        "kernels": ", ".join(kernels(graph, feeds[0], device, precision)),
    }


def names(_context: click.Context, option: click.Parameter, value: str) -> list[str]:
    """Names with commas between, each of them one that there is."""
    found = [name for name in value.split(",") if name]
    if unknown := set(found) - set(str(option.default).split(",")):
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}")
    return found


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cpu tries out whether all of it runs, in fp32.")
@click.option("--models", default=",".join(CASES), callback=names, help="Some of them.", show_default=True)
@click.option("--shapes", default=",".join(SHAPES), callback=names, help="Some of them.", show_default=True)
@click.option("--jobs", default=",".join(JOBS), callback=names, help="Some of them.", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Of each measurement.")
@click.option("--rows", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Of a job of texts.")
@click.option("--pictures", type=click.IntRange(min=1), default=20_000, show_default=True, help="Of a job of pictures.")
@click.option("--budget", type=click.IntRange(min=1), default=BUDGET, show_default=True, help="Tokens of a batch.")
def main(
    device: str,
    models: list[str],
    shapes: list[str],
    jobs: list[str],
    rounds: int,
    seconds: float,
    rows: int,
    pictures: int,
    budget: int,
) -> None:
    """Measure models alone, then jobs of BERT-base for texts and of ViT-B for pictures. What is found is printed at
    once, and all of it at the end."""
    peak = gemm_peak(device, GEMM if device != "cpu" else 1024, seconds)
    measured, done = [], {}
    for case in (CASES[name] for name in models):
        make_checkpoint(case)
        make_bundle(case, device)
        for shape in case.shapes(budget):
            if shape.name in shapes:
                measured.append(measure(case, shape, device, seconds, rounds, peak))
                click.echo(json.dumps(measured[-1]), err=True)
    for name in jobs:
        case = CASES["vit-base" if name == PHOTOGRAPHS else "bert-base"]
        make_checkpoint(case)
        make_bundle(case, device)
        done[name] = (
            whole_job(case, input_of(BY_NAME[name], pictures), device)
            if name == PHOTOGRAPHS
            else text_job(case, name, rows, device)
        )
        click.echo(json.dumps({name: done[name]}), err=True)
    show(torch.cuda.get_device_name() if device != "cpu" else "processor", peak, measured)
    show_jobs(done)
    print(json.dumps({"gemm_tflops": peak / 1e12, "models": measured, "jobs": done}))


if __name__ == "__main__":
    main()
