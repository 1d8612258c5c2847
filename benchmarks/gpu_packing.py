"""`python -m benchmarks.gpu_packing`: what padding costs a GPU, sorted away, removed within the graph, or both.

BERT-base in fp16 on texts of mixed lengths: batches in the file's order and batches by length, through the graph
that tfbatch runs and through one with onnxruntime's `PackedAttention`, which leaves padding out of all products,
and whose last layer is for all tokens. The session alone, in real tokens a second. On a processor, which has no
such kernel, the plain graph alone.
"""

import json
import statistics
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import onnx_ir
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from tfbatch.batches import Feeds, Indices
from tfbatch.runtimes.device import find_device, open_session

from benchmarks.contenders._text import encode, load_tokenizer, pad, sorted_batches
from benchmarks.gpu import by_session, rate
from benchmarks.gpu_jobs import BUDGET
from benchmarks.gpu_models import CASES, Case, make_bundle, make_checkpoint
from benchmarks.texts import extended, mixed

MOST_APART = 0.02  # of the spread of the logits, between the two graphs in half precision


def make_whole(case: Case, folder: Path) -> Path:
    """A case's fused graph in half precision with all of its last layer, as onnxruntime's tool for packing needs it."""
    from tfbatch_export.graphs import build_whole_graph
    from tfbatch_export.precision import write_fp16

    model = case.model_class().from_pretrained(case.checkpoint).eval()
    whole, half = folder / "gpu-whole.onnx", folder / "gpu-whole-fp16.onnx"
    onnx_ir.save(build_whole_graph(case.family, model), whole)
    write_fp16(whole, half, case.family.parity_batches(model.config))
    return half


def pack(graph: Path, target: Path) -> None:
    """A fused graph with its padding removed before the first attention and restored behind the last layer."""
    from onnxruntime.transformers.convert_to_packing_mode import PackingMode
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(onnx.load(graph))
    attentions = len(model.get_nodes_by_op_type("Attention"))
    PackingMode(model).convert()
    if not attentions or len(model.get_nodes_by_op_type("PackedAttention")) != attentions:
        sys.exit(f"onnxruntime's tool packs not all of the {attentions} attentions of {graph}")
    model.save_model_to_file(str(target))


def in_order(lengths: Indices, budget: int) -> list[Indices]:
    """Rows as they come: as many a batch as the longest of them allows."""
    batches, start = [], 0
    while start < len(lengths):
        most = np.maximum.accumulate(lengths[start:]) * np.arange(1, len(lengths) - start + 1)
        rows = max(1, int(np.searchsorted(most, budget, side="right")))
        batches.append(np.arange(start, min(start + rows, len(lengths))))
        start += rows
    return batches


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cpu tries out whether what it can do runs, in fp32.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Of each measurement.")
@click.option("--rows", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--budget", type=click.IntRange(min=1), default=BUDGET, show_default=True, help="Tokens of a batch.")
def main(device: str, rounds: int, seconds: float, rows: int, budget: int) -> None:
    """Measure both orders and both graphs in interleaved rounds, once their logits are the same."""
    case, precision = CASES["bert-base"], "fp32" if device == "cpu" else "fp16"
    make_checkpoint(case)
    make_bundle(case, device)
    plain = case.bundle / ("model.onnx" if device == "cpu" else "model_fp16.onnx")
    ids = encode(load_tokenizer(case), pa.table({"text": extended(mixed(), rows)}))
    lengths = np.array([len(each) for each in ids])
    orders = {"in the file's order": in_order(lengths, budget), "by length": list(sorted_batches(ids, budget))}
    feeds: dict[str, list[Feeds]] = {
        name: [dict(pad([ids[row] for row in batch])) for batch in batches] for name, batches in orders.items()
    }
    graphs = {"padded": plain}
    if device != "cpu":
        graphs["packed"] = case.bundle.parent / "gpu-packed.onnx"
        pack(make_whole(case, graphs["packed"].parent), graphs["packed"])
        batch = feeds["in the file's order"][0]
        first, second = (open_session(graph, find_device(device), precision).run(batch) for graph in graphs.values())
        if (apart := np.abs(first - second).max() / first.std()) > MOST_APART:
            sys.exit(f"the packed graph is another one: logits are up to {apart:.1%} of their spread apart")
    ways = {
        (graph, order): by_session(graphs[graph], feeds[order], device, precision)
        for graph in graphs for order in feeds
    }  # fmt: skip
    found: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, flow in ways.items():
            found[way].append(rate(flow, int(lengths.sum()), seconds, device))
    table = Table("graph", "batches", "computed / real", "real tokens/s", "times padded by length")
    medians = {way: statistics.median(rates) for way, rates in found.items()}
    for (graph, order), tokens in medians.items():
        computed = 1.0 if graph == "packed" else sum(each["input_ids"].size for each in feeds[order]) / lengths.sum()
        times = tokens / medians["padded", "by length"]
        table.add_row(graph, order, f"{computed:.3f}", f"{tokens:,.0f}", f"{times:.2f}")
    Console(stderr=True).print(table)
    print(json.dumps({f"{graph}, {order}": tokens for (graph, order), tokens in medians.items()}))


if __name__ == "__main__":
    main()
