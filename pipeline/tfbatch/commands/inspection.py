"""What a bundle or a Parquet input holds, found out with little work: no graph is loaded, and of rows only the
first few hundred are looked at."""

from pathlib import Path
from typing import Any

from tfbatch.batching.cells import KINDS
from tfbatch.bundle import Bundle
from tfbatch.bundles.manifest import Graph, mean, way_of
from tfbatch.commands.samples import Record, sample_columns
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.foreign import graph_in, has_manifest, open_bundle
from tfbatch.plan import make_plan
from tfbatch.tasks import load_task, task_names
from tfbatch.text.tokenizer import Tokenizer

ROWS = 256  # that are looked at


def inspect(paths: tuple[str, ...], model: Path | None) -> Record:
    """The facts of a model's folder, or of a Parquet input; a model's tokenizer counts the tokens of texts.

    Raises:
        TfbatchError: what is wrong with it.
    """
    folder = Path(paths[0])
    if len(paths) == 1 and (has_manifest(folder) or graph_in(folder)):
        if model is not None:
            raise UsageError(f"{folder} is a bundle itself; -m is for Parquet, whose texts its tokenizer counts")
        return inspect_bundle(open_bundle(folder))
    return inspect_input(paths, None if model is None else open_bundle(model))


def inspect_bundle(bundle: Bundle) -> Record:
    """What a bundle's manifest says."""
    manifest = bundle.manifest
    try:
        graphs = inspect_graphs(bundle)
        source, versions, inputs = dict(manifest.source), dict(manifest.versions), list(manifest.inputs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadConfiguration(
            f"bundle {bundle.path}: what the manifest says of it cannot be understood: {type(error).__name__} {error}"
        ) from error
    return {
        "kind": "bundle",
        "path": str(bundle.path),
        "verified": bundle.is_verified,
        "task": manifest.task,
        "family": manifest.family,
        "labels": manifest.labels,
        "source": source,
        "inputs": inputs,
        "settings": manifest.settings,
        "graphs": graphs,
        "versions": versions,
    }


def inspect_graphs(bundle: Bundle) -> Record:
    """What was proved of each graph, by its precision, or by its name where it is a side graph."""
    graphs = {**bundle.manifest.graphs, **bundle.manifest.side_graphs}
    return {name: inspect_graph(bundle, graph) for name, graph in graphs.items()}


def inspect_graph(bundle: Bundle, graph: Graph) -> Record:
    """What was proved of one graph: its operators and, for each way to compute it, how far it is from PyTorch."""
    ways: dict[str, list[Record]] = {}
    for record in graph.parity:
        ways.setdefault(way_of(record), []).append(record)
    return {
        "file": graph.file,
        "bytes": (bundle.path / graph.file).stat().st_size,
        "layers": int(graph.layers),
        "operators": {
            name: {"found": graph.fused[name], "expected": expected} for name, expected in graph.expected.items()
        },
        "tolerance": graph.tolerance,
        "ways": {way: summarise(records) | {"proved": graph.proofs.get(way)} for way, records in ways.items()},
    }


def summarise(records: list[Record]) -> Record:
    """The largest difference of some batches, None where an output is no number, and the means of real rows,
    or of all where there were none."""
    differences = [record["max_abs_difference"] for record in records]
    real = [record for record in records if record.get("is_real")] or records
    found = [float(difference) for difference in differences if difference is not None]
    return {
        "batches": len(records),
        "max_abs_difference": max(found) if len(found) == len(differences) else None,
        **{name: mean(real, name) for name in ("cosine", "label_agreement")},
    }


def inspect_input(paths: tuple[str, ...], bundle: Bundle | None) -> Record:
    """What the footers of an input say, and its first rows."""
    plan = make_plan(paths).in_parts(ROWS, limit=ROWS)
    samples = sample_columns(plan, tokenizer_of(bundle))
    tasks = {name: load_task(name).kind for name in task_names()}

    def describe(name: str, kind: Any) -> Record:
        kinds = [word for word, fits in KINDS.items() if fits(kind)]
        fitting = [task for task, read in tasks.items() if read in kinds]
        return {"name": name, "type": str(kind), "kinds": kinds, "tasks": fitting, "sample": samples.get(name)}

    return {
        "kind": "table",
        "paths": list(paths),
        "files": len(plan.files),
        "rows": sum(file.rows for file in plan.files),
        "row_groups": sum(file.row_groups for file in plan.files),
        "columns": [describe(field.name, field.type) for field in plan.schema],
    }


def tokenizer_of(bundle: Bundle | None) -> Tokenizer | None:
    """What counts tokens; None without a bundle that reads texts."""
    if bundle is None or load_task(bundle.manifest.task).kind != "text":
        return None
    return Tokenizer(bundle)
