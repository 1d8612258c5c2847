"""A finished bundle, checked again: its files, its operators and, where it can be, its parity."""

from dataclasses import replace
from pathlib import Path

import onnx_ir
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.errors import ExportNotVerified, NoInput
from tfbatch.graphs.manifest import Manifest

from tfbatch_export.checkpoint import Checkpoint, find_checkpoint, load_model
from tfbatch_export.export import Say
from tfbatch_export.families import Pooled, load_family, sides_of
from tfbatch_export.parity import check_parity, compute_references, measure_parity
from tfbatch_export.rewrites.operators import check_fusion, count_operators


def verify(path: Path, source: str | None, say: Say = lambda _: None) -> tuple[Bundle, bool]:
    """Check a bundle again: its files, its fused operators and, where the checkpoint it was made
    of is to be had, its parity. There are no real rows here, so reduced precision has to give
    numbers, and how near they are is shown.

    Returns:
        The bundle, with the parity just measured, and whether it was.

    Raises:
        BadConfiguration: a file is not what it was.
        ExportNotVerified: an operator or a number is not what it was.
    """
    bundle = load_bundle(path)
    manifest = bundle.manifest
    checkpoint = find_source(manifest, source)
    paths = [(bundle.graph_path(precision), graph) for precision, graph in manifest.graphs.items()]
    paths += [(bundle.side_graph_path(name), graph) for name, graph in manifest.side_graphs.items()]
    for file, graph in paths:
        say(f"counting operators of {graph.file}")
        check_fusion(count_operators(onnx_ir.load(file)), graph.expected)
    if checkpoint is None:
        return bundle, False
    say(f"comparing with {checkpoint.name}")
    family = load_family(manifest.family, manifest.task)
    if isinstance(family, Pooled):
        settings = manifest.settings
        family = family.pooled(settings["pooling"], is_normalised=settings["normalised"])
    model = load_model(checkpoint, manifest.task, family)
    samples = compute_references(family, model, family.parity_batches(model.config), {})
    measured = {}
    for precision, graph in manifest.graphs.items():
        parity = measure_parity(path / graph.file, samples, precision)
        measured[precision] = replace(graph, parity=parity, proofs=graph.proofs | check_parity(parity, precision))
    sides = {}
    for name, side in sides_of(family).items():
        samples = compute_references(side, model, side.parity_batches(model.config), {})
        record = manifest.side_graphs[name]
        parity = measure_parity(path / record.file, samples)
        sides[name] = replace(record, parity=parity, proofs=check_parity(parity, "fp32"))
    return replace(bundle, manifest=replace(manifest, graphs=measured, side_graphs=sides)), True


def find_source(manifest: Manifest, source: str | None) -> Checkpoint | None:
    """The checkpoint a bundle was made of: the one named, or the recorded one if it is still there.

    Raises:
        ExportNotVerified: its weights are not those that were exported.
    """
    recorded = manifest.source
    name = source or recorded["name"]
    if source is None and recorded["commit"] is None and not Path(name).is_dir():
        return None
    try:
        checkpoint = find_checkpoint(name, recorded["commit"] if not Path(name).is_dir() else None)
    except NoInput:
        if source is not None:
            raise
        return None
    if checkpoint.weights != recorded["weights"]:
        raise ExportNotVerified(f"the weights in {checkpoint.name} are not those that the bundle was made of")
    return checkpoint
