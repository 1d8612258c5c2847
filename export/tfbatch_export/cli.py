"""The commands of the export stage; `tfbatch.cli` loads them when they are called.

PyTorch and transformers take ten seconds to import: that is left until the words of a command fit.
"""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.bundles.manifest import Graph
from tfbatch.commands.inspection import inspect_graphs
from tfbatch.commands.listing import graph_parts, show_parts
from tfbatch.commands.options import Name, Place, read_labels
from tfbatch.errors import ExportNotVerified
from tfbatch.host.standard_streams import say, tell
from tfbatch.tasks import task_names

from tfbatch_export.config import POOLINGS, ExportConfig


def end(number: int, _: FrameType | None) -> NoReturn:
    """Let go of what is under way, so that its temporary folders go; where it is told twice it has begun to."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


@click.command(name="export")
@click.argument("model", type=Name())
@click.option("-o", "--output", type=Place(), required=True, help="The bundle's folder.")
@click.option("--task", type=click.Choice(task_names()), help="Default: what the checkpoint was saved for.")
@click.option("--revision", help="A branch, tag or commit of a Hub repository.")
@click.option(
    "--samples",
    type=Place(),
    help="Parquet whose first rows (64; 512 with --fp16 or --int8) are compared on too; 8-bit steps are found on them.",
)
@click.option("--samples-column", help="The column of --samples, where more than one fits.")
@click.option("--samples-pair-column", help="The second text of each pair of --samples.")
@click.option("--samples-labels", type=read_labels, metavar="A,B", help="Labels for --samples, where run is told them.")
@click.option("--fp16", is_flag=True, help="Add a graph in half precision, for GPUs.")
@click.option("--pooling", type=click.Choice(POOLINGS), help="How pictures are embedded; default: as the paper has it.")
@click.option("--normalise", is_flag=True, help="Embed pictures to length one.")
@click.option("--int8", is_flag=True, help="Add a graph of 8-bit products, for processors; needs --samples.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def export(**settings: Any) -> None:
    """Turn a Hugging Face checkpoint into a verified bundle.

    MODEL is a local folder or the name of a Hub repository, with weights in safetensors. The graph
    is fused and compared with PyTorch; where it is not equal, nothing is written (exit code 70).
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, end)
    config = ExportConfig(**settings)
    config.check()
    from tfbatch_export.export import export as export_checkpoint

    try:
        bundle = export_checkpoint(config, tell)
    except ExportNotVerified as error:
        raise ExportNotVerified(f"{error} No bundle was written.") from error
    report(bundle, "exported", started)


@click.command(name="verify")
@click.argument("bundle", type=Place())
@click.option("--source", help="The checkpoint it was made of, where that has moved.")
def verify(bundle: Path, source: str | None) -> None:
    """Check a bundle again: files, fused operators and, if the checkpoint is to be had, parity."""
    started = time.monotonic()
    load_bundle(bundle)
    from tfbatch_export.verify import verify as verify_bundle

    checked, compared = verify_bundle(bundle, source, tell)
    if not compared:
        tell(f"parity not repeated: {checked.manifest.source['name']} is not to be had (name it with --source)")
    report(checked, "verified", started, parity_repeated=compared)


def largest_difference(graph: Graph, precision: str) -> float | None:
    """From PyTorch in the graph's own precision; None where outputs are no numbers."""
    own = [record["max_abs_difference"] for record in graph.parity if record.get("precision", "fp32") == precision]
    return None if None in own else max(own)


def report(bundle: Bundle, status: str, started: float, **more: Any) -> None:
    """Tables for people on standard error, a line of JSON for programs on standard output."""
    manifest = bundle.manifest
    graphs: dict[str, Graph] = {**manifest.graphs, **manifest.side_graphs}
    tell(f"{manifest.family} for {manifest.task}")
    for name, facts in inspect_graphs(bundle).items():
        show_parts(graph_parts(name, facts))
    result = {
        "status": status,
        "bundle": str(bundle.path),
        "task": manifest.task,
        "family": manifest.family,
        "commit": manifest.source["commit"],
        "graphs": {
            name: {
                "layers": graph.layers,
                "fused": graph.fused,
                "max_abs_difference": largest_difference(graph, name if name in manifest.graphs else "fp32"),
                "proofs": graph.proofs,
                "kept_in_fp32": graph.kept_in_fp32,
                "bytes": (bundle.path / graph.file).stat().st_size,
            }
            for name, graph in graphs.items()
        },
        "seconds": round(time.monotonic() - started, 1),
        **more,
    }
    say(result)
