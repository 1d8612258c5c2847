"""A finished bundle, checked again: its files, its operators and, where it can be, its parity."""

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx_ir
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.bundles.manifest import MANIFEST, Manifest
from tfbatch.errors import BadConfiguration, ExportNotVerified, NoInput, UsageError
from transformers import PreTrainedModel

from tfbatch_export.checkpoint import Checkpoint, find_checkpoint, load_model
from tfbatch_export.export import Say
from tfbatch_export.families import Family, Pooled, load_family, sides_of
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
    if not manifest.graphs:
        raise BadConfiguration(f"{path}: {MANIFEST} names no graph")
    paths = [(bundle.graph_path(precision), graph) for precision, graph in manifest.graphs.items()]
    paths += [(bundle.side_graph_path(name), graph) for name, graph in manifest.side_graphs.items()]
    for file, graph in paths:
        say(f"counting operators of {graph.file}")
        check_fusion(count_operators(onnx_ir.load(file)), graph.expected)
    if checkpoint is None:
        return bundle, False
    say(f"comparing with {checkpoint.name}")
    family = find_family(manifest)
    model = load_model(checkpoint, manifest.task, family)
    check_facts(manifest, checkpoint, family, model)
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


def find_family(manifest: Manifest) -> Family:
    """The family's object that a bundle was made by.

    Raises:
        BadConfiguration: there is none for what the manifest says.
    """
    try:
        family = load_family(manifest.family, manifest.task)
    except UsageError as error:
        raise BadConfiguration(f"{MANIFEST}: {error}") from error
    if not isinstance(family, Pooled):
        return family
    try:
        return family.pooled(manifest.settings["pooling"], is_normalised=manifest.settings["normalised"])
    except KeyError as error:
        raise BadConfiguration(f"{MANIFEST} has no {error} in its settings") from error


def check_facts(manifest: Manifest, checkpoint: Checkpoint, family: Family, model: PreTrainedModel) -> None:
    """Hold what a manifest says of a model beside its graphs to the checkpoint; settings of other versions may be more
    or fewer.

    Raises:
        ExportNotVerified: something is another.
    """
    with tempfile.TemporaryDirectory() as scratch:
        settings = family.write_preprocessor(checkpoint.folder, model.config, Path(scratch))
    found = {"labels": family.labels(model.config), "inputs": list(family.inputs)}
    wrong = [name for name, value in found.items() if getattr(manifest, name) != value]
    wrong += [name for name, value in settings.items() if manifest.settings.get(name, value) != value]
    if wrong:
        raise ExportNotVerified(f"{MANIFEST} has other {', '.join(wrong)} than the checkpoint that it names")


def find_source(manifest: Manifest, source: str | None) -> Checkpoint | None:
    """The checkpoint a bundle was made of: the one named, or the recorded one if it is still there.

    Raises:
        ExportNotVerified: its weights are not those that were exported.
    """
    recorded = manifest.source
    if not {"name", "commit", "weights"} <= recorded.keys() or not isinstance(recorded["name"], str):
        raise BadConfiguration(f"{MANIFEST} does not say what checkpoint the bundle was made of")
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
