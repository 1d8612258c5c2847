"""`python -m benchmarks.limit`: how far tfbatch is from what the machine can do.

The limit is measured three ways, and again for each round: products of matrices alone, fp32 and
8 bits; the session alone on BERT-base at 128 tokens; and the session alone on the batches of a whole
job, cut from all rows at once. Then the job itself, as `tfbatch run` does it.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from tfbatch.batches import Feeds, Window, Work
from tfbatch.batching.cutting import cut
from tfbatch.config import RunConfig
from tfbatch.job import Job, make_job
from tfbatch.plan import Part
from tfbatch.runtimes.device import find_device, open_session

from benchmarks.data import input_of
from benchmarks.models import make_bundle, make_checkpoint
from benchmarks.race import output_of, remove, tfbatch
from benchmarks.workloads import BY_NAME, HERE

LENGTH, BATCH = 128, 4  # tokens of a row, rows of a batch
SHAPES = ((LENGTH * BATCH, 768, 3072), (LENGTH * BATCH, 3072, 768), (LENGTH * BATCH, 768, 768))  # BERT-base's
SECONDS = 2.0  # that each product is repeated for


def product(rows: int, inner: int, columns: int, *, is_int8: bool) -> Callable[[], object]:
    """A product of two matrices by onnxruntime on one thread, (rows, inner) and constant (inner, columns)."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    operator, kind = ("MatMulInteger", TensorProto.UINT8) if is_int8 else ("MatMul", TensorProto.FLOAT)
    weights = random.integers(-127, 128, (inner, columns)).astype(np.int8 if is_int8 else np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kind, [rows, inner])],
        [helper.make_tensor_value_info("c", TensorProto.INT32 if is_int8 else kind, [rows, columns])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"a": random.integers(0, 256, (rows, inner)).astype(np.uint8 if is_int8 else np.float32)}
    return lambda: session.run(None, feed)


def torch_product(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """The same by PyTorch on one thread, fp32."""
    import torch

    torch.set_num_threads(1)
    left, right = torch.randn(rows, inner), torch.nn.Linear(inner, columns, bias=False)

    def multiply() -> object:
        with torch.inference_mode():
            return right(left)

    return multiply


def rate(products: list[Callable[[], object]], operations: float, threads: int) -> float:
    """Operations a second of products on so many threads at once, each with its own calls."""

    def repeat(_: int) -> int:
        until, count = time.perf_counter() + SECONDS, 0
        while time.perf_counter() < until:
            for multiply in products:
                multiply()
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        rounds = sum(pool.map(repeat, range(threads)))
    return rounds * operations / (time.perf_counter() - started)


def peaks(threads: int) -> dict[str, float]:
    """Operations a second of BERT-base's products: the best of two libraries in fp32, and 8 bits."""
    operations = float(sum(2 * rows * inner * columns for rows, inner, columns in SHAPES))
    fp32 = [product(*shape, is_int8=False) for shape in SHAPES]
    by_torch = [torch_product(*shape) for shape in SHAPES]
    int8 = [product(*shape, is_int8=True) for shape in SHAPES]
    return {
        "fp32": max(rate(fp32, operations, threads), rate(by_torch, operations, threads)),
        "int8": rate(int8, operations, threads),
    }


def seconds_of(session: Any, batches: list[Feeds], threads: int) -> float:
    """Seconds that a session takes for batches that are ready, on so many threads."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(session.run, batches))
    return time.perf_counter() - started


def operations_of(length: int, layers: int = 12, width: int = 768) -> float:
    """Multiplications and additions of one row of BERT-base, whose last layer makes keys and values of all tokens,
    the rest of one."""
    last = 4 * length * width**2 + 20 * width**2 + 4 * length * width
    return (layers - 1) * (24 * length * width**2 + 4 * length**2 * width) + last


def batches_of(job: Job, file: Path) -> tuple[Work, list[Feeds]]:
    """All rows of a file as batches that are as full as can be: sorted over all of it."""
    rows = pq.read_table(file)
    part = Part(file=0, first=0, stop=rows.num_rows, folder=Path(), identity="")
    work = job.task.prepare(Window(part=part, first=0, rows=rows))
    found = cut(work.lengths, work.groups, job.device.batch_tokens)
    return work, [work.collate(batch.inputs, batch.length) for batch in found]


def measure(rows: int, threads: int) -> dict[str, Any]:
    """One round of everything."""
    workload = BY_NAME["base"]
    file, output = input_of(workload, rows), HERE / "outputs" / "limit"
    job = make_job(RunConfig(inputs=(str(file),), bundle=workload.model.bundle, output=str(output)))
    session = open_session(job.graph, find_device("cpu"), threads=threads)
    full = {name: np.ones((BATCH, LENGTH), np.int64) for name in job.bundle.manifest.inputs}
    repeats = [full] * (4 * threads)
    peak = peaks(threads)
    alone = len(repeats) * BATCH * operations_of(LENGTH) / seconds_of(session, repeats, threads)
    work, batches = batches_of(job, file)
    ideal = seconds_of(session, batches, threads)
    remove(output)
    summary = json.loads(output_of(tfbatch((), workload, file, output, threads), threads).splitlines()[-1])
    return {
        "gemm_fp32_gflops": peak["fp32"] / 1e9,
        "gemm_int8_gops": peak["int8"] / 1e9,
        "session_gflops": alone / 1e9,
        "share_of_gemm_peak": alone / peak["fp32"],
        "session_alone_seconds": ideal,
        "job_seconds": summary["seconds"],
        "job_over_session": summary["seconds"] / ideal,
        "job_over_session_once_loaded": (summary["seconds"] - summary["waited_seconds"]["load"]) / ideal,
        "padding_ratio": summary["padding_ratio"],
        "peak_memory_mb": summary["peak_memory_bytes"] / 1e6,
        **{f"busy_{name}_seconds": seconds for name, seconds in summary["busy_seconds"].items()},
        "tokens": int(work.lengths.sum()),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), default=BY_NAME["base"].rows, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
def main(rounds: int, rows: int, threads: int) -> None:
    """Measure the machine's limit and tfbatch beside it."""
    make_checkpoint(BY_NAME["base"].model)
    make_bundle(BY_NAME["base"].model)
    found = [measure(rows, threads) for _ in range(rounds)]
    medians = {name: round(statistics.median(each[name] for each in found), 3) for name in found[0]}
    table = Table(title=f"BERT-base, {rows:,} reviews, {threads} threads, medians of {rounds} rounds")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in medians.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    Console(stderr=True).print(table)
    (HERE / "results").mkdir(parents=True, exist_ok=True)
    (HERE / "results" / "limit.json").write_text(json.dumps(medians, indent=2))
    print(json.dumps(medians))


if __name__ == "__main__":
    sys.exit(main())
