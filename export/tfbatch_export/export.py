"""A checkpoint's way to a bundle: load, trace, fuse; for each precision write, check the fusion, check parity.

Nothing is at the bundle's path until all of it has been proved: the files are made in a folder
beside it, which is renamed at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tfbatch import __version__
from tfbatch.bundle import Bundle, hash_files, load_bundle
from tfbatch.bundles.manifest import Manifest, write_manifest
from tfbatch.errors import UsageError
from transformers import PreTrainedModel

from tfbatch_export.checkpoint import Checkpoint, find_checkpoint, infer_task, load_model
from tfbatch_export.config import ExportConfig
from tfbatch_export.destination import ASIDE, move_in, refuse_place, scratch_folder
from tfbatch_export.families import Family, Pooled, load_family, sides_of, tasks_of
from tfbatch_export.graphs import make_graph, make_side_graph, write_graph
from tfbatch_export.parity import Samples, compute_references
from tfbatch_export.samples import SAMPLES, real_batches

REDUCED_SAMPLES = 512  # real rows that are read to compare labels on where there is more than fp32
Say = Callable[[str], None]
PACKAGES = ("torch", "transformers", "optimum", "onnx", "onnxscript", "onnxruntime")


def export(config: ExportConfig, say: Say = lambda _: None) -> Bundle:
    """Make a bundle of a checkpoint.

    Raises:
        ExportNotVerified: the graph is not fused as it should be, or is not equal to PyTorch.
        NoInput, BadConfiguration, UsageError: the checkpoint cannot be exported.
        OutputRefused: there is something at the bundle's path.
        OutputFailed: the bundle cannot be made or put there.
    """
    place = config.check()
    torch.manual_seed(0)
    checkpoint = find_checkpoint(config.model, config.revision)
    model_type = str(checkpoint.config.get("model_type", "unknown"))
    tasks_of(model_type)  # an unknown family is the first thing to say
    task = config.task or infer_task(checkpoint)
    family = choose_family(config, model_type, task)
    if config.samples is not None and sides_of(family):
        raise UsageError(f"--samples is not for {task}: what real pictures are held against is told at run")
    say(f"loading {checkpoint.name} for {task}")
    model = load_model(checkpoint, task, family)
    with scratch_folder(place) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        draft = write_preprocessor(folder, checkpoint, family, model, task)
        say("tracing and fusing")
        fused = scratch / "fused.onnx"
        _, expected = write_graph(fused, family, model)
        say("computing with PyTorch")
        samples = gather_samples(config, family, model, Bundle(path=folder, manifest=draft))
        graphs = {}
        for precision in config.precisions:
            say(f"making the graph in {precision}, comparing")
            graphs[precision] = make_graph(fused, folder, precision, expected, samples, family.layers(model.config))
        sides = {name: make_side_graph(folder, name, side, model) for name, side in sides_of(family).items()}
        write_manifest(folder, replace(draft, graphs=graphs, side_graphs=sides, files=hash_files(folder)))
        bundle = load_bundle(folder)
        for precision in graphs:
            bundle.graph_path(precision)  # as run will ask for it
        for name in sides:
            bundle.side_graph_path(name)
        refuse_place(place, config.needed, is_replaced=config.overwrite)
        move_in(folder, place, Path(f"{scratch}{ASIDE}"))
    return replace(bundle, path=config.output)


def choose_family(config: ExportConfig, model_type: str, task: str) -> Family:
    """The family's object for a task, pooled as it was asked for.

    Raises:
        UsageError: there is none, or it is not pooled so.
    """
    family = load_family(model_type, task)
    if isinstance(family, Pooled):
        return family.pooled(config.pooling, is_normalised=config.normalise)
    if config.pooling or config.normalise:
        raise UsageError(
            f"--pooling and --normalise are not for {task} of {model_type}; texts are pooled as their checkpoint says, "
            f"and the embeddings of two towers as they were trained"
        )
    return family


def gather_samples(config: ExportConfig, family: Family, model: PreTrainedModel, draft: Bundle) -> Samples:
    """What graphs are compared on: made-up batches of all sizes, and real rows where there are any."""
    real = {}
    if config.samples is not None:
        rows = REDUCED_SAMPLES if len(config.precisions) > 1 else SAMPLES
        real = real_batches(draft, config.samples, config.of_samples, rows)
    return compute_references(family, model, family.parity_batches(model.config), real)


def write_preprocessor(
    folder: Path, checkpoint: Checkpoint, family: Family, model: PreTrainedModel, task: str
) -> Manifest:
    """The bundle's files but the graph, and a manifest without it."""
    settings = family.write_preprocessor(checkpoint.folder, model.config, folder)
    model.config.to_json_file(folder / "config.json")
    return Manifest(
        task=task,
        family=model.config.model_type,
        source=checkpoint.source,
        labels=family.labels(model.config),
        inputs=list(family.inputs),
        settings=settings,
        graphs={},
        versions={"tfbatch": __version__} | package_versions(),
        files=hash_files(folder),
    )


def package_versions() -> dict[str, str]:
    """Versions of what made the graph, as far as installed under these names."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found
