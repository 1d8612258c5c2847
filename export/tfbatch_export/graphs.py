"""A model's graphs: traced and fused, written in each precision, counted and found equal to PyTorch."""

from dataclasses import replace
from pathlib import Path

import onnx_ir
import torch
from tfbatch.bundles.manifest import Graph, SideGraph
from tfbatch.errors import ExportNotVerified, UsageError
from transformers import PreTrainedModel

from tfbatch_export.distance import TOLERANCE
from tfbatch_export.families import Family
from tfbatch_export.fuse import fuse
from tfbatch_export.parity import Samples, check_parity, compute_references, measure_parity
from tfbatch_export.precision import write_fp16, write_fp32
from tfbatch_export.quantization.int8 import write_int8
from tfbatch_export.rewrites.attention import taken_apart
from tfbatch_export.rewrites.leading import keep_leading_tokens
from tfbatch_export.rewrites.operators import check_fusion, count_operators
from tfbatch_export.trace import by_pytorch, trace

GRAPH_FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}
GRAPH_LIMIT = 2**31 - 2**20  # bytes of weights that one protobuf file holds


def make_graph(
    fused: Path, folder: Path, precision: str, expected: dict[str, int], samples: Samples, layers: int
) -> Graph:
    """The graph of a precision, made of the fused one and found equal to the checkpoint."""
    path, kept = folder / GRAPH_FILES[precision], list[str]()
    if precision == "int8":
        return make_int8_graph(fused, path, expected, samples, layers)
    if precision == "fp32":
        changed = write_fp32(fused, path)
    else:
        changed, kept = write_fp16(fused, path, samples.batches)
    graph = count_and_prove(path, precision, expected | changed, samples, layers)
    return replace(graph, kept_in_fp32=kept)


def make_int8_graph(fused: Path, path: Path, expected: dict[str, int], samples: Samples, layers: int) -> Graph:
    """The graph in 8 bits, of static products where these are near enough all together, else of blocks."""
    real = {name: batch for name, batch in samples.batches.items() if name in samples.real}
    try:
        return count_and_prove(path, "int8", expected | write_int8(fused, path, real), samples, layers)
    except ExportNotVerified:
        return count_and_prove(path, "int8", expected | write_int8(fused, path, {}), samples, layers)


def count_and_prove(path: Path, precision: str, expected: dict[str, int], samples: Samples, layers: int) -> Graph:
    """What the manifest says of a graph, once its operators have been counted."""
    counts = count_operators(onnx_ir.load(path))
    check_fusion(counts, expected)
    return prove_graph(path, precision, counts, expected, samples=samples, layers=layers)


def make_side_graph(folder: Path, name: str, side: Family, model: PreTrainedModel) -> SideGraph:
    """A side graph, fused and found equal to the checkpoint as the main ones are."""
    path = folder / f"model_{name}.onnx"
    counts, expected = write_graph(path, side, model)
    samples = compute_references(side, model, side.parity_batches(model.config), {})
    graph = prove_graph(path, "fp32", counts, expected, samples=samples, layers=side.layers(model.config))
    return SideGraph(**vars(graph), inputs=list(side.inputs))


def prove_graph(
    path: Path, precision: str, counts: dict[str, int], expected: dict[str, int], *, samples: Samples, layers: int
) -> Graph:
    """What the manifest says of a graph, once it has been found equal to the checkpoint."""
    parity = measure_parity(path, samples, precision)
    return Graph(
        file=path.name,
        layers=layers,
        fused={name: counts.get(name, 0) for name in expected},
        expected=dict(expected),
        tolerance=TOLERANCE,
        parity=parity,
        proofs=check_parity(parity, precision),
    )


def write_graph(path: Path, family: Family, model: PreTrainedModel) -> tuple[dict[str, int], dict[str, int]]:
    """Make and save a graph; returns its operators by type, and how many of some are expected.

    Raises:
        ExportNotVerified: it is not fused as it should be.
    """
    graph, expected = build_graph(family, model)
    counts = count_operators(graph)
    check_fusion(counts, expected)
    onnx_ir.save(graph, path)
    return counts, expected


def build_graph(family: Family, model: PreTrainedModel) -> tuple[onnx_ir.Model, dict[str, int]]:
    """A model's graph, without what nothing reads, and which operators it must have."""
    graph, expected = build_whole_graph(family, model), family.expected(model.config)
    return graph, expected | taken_apart(expected, keep_leading_tokens(graph))


def build_whole_graph(family: Family, model: PreTrainedModel) -> onnx_ir.Model:
    """Trace and fuse."""
    implementation = model.config._attn_implementation
    if family.attention is not None:
        model.set_attn_implementation(family.attention)
    try:
        with by_pytorch("trace"):
            inputs, axes = family.trace_inputs(model.config)
            wrapper = family.wrap(model)
        refuse_heavy(wrapper)
        graph = trace(wrapper, inputs, axes, (family.output, *family.further_outputs))
    finally:
        if family.attention is not None:
            model.set_attn_implementation(implementation)
    graph = fuse(graph)
    family.complete(graph)
    return graph


def refuse_heavy(wrapper: torch.nn.Module) -> None:
    """Refuse what has more weights than one ONNX file holds."""
    bytes_of_weights = sum(weight.nbytes for weight in wrapper.parameters())
    if bytes_of_weights > GRAPH_LIMIT:
        raise UsageError(f"the weights take {bytes_of_weights:,} bytes in fp32; one ONNX file holds {GRAPH_LIMIT:,}")
