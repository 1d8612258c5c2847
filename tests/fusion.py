"""A model's graph, fused and held to the model."""

from pathlib import Path
from typing import Any

import onnx_ir
from tfbatch.runtimes.device import find_device
from tfbatch_export.families import load_family
from tfbatch_export.graphs import build_graph
from tfbatch_export.parity import compute_references, measure_way
from tfbatch_export.precision import write_fp32
from tfbatch_export.rewrites.operators import check_fusion, count_operators


def fused_and_compared(name: str, task: str, model: Any, folder: Path) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """The operators of a model's graph, and its parity, which is held to the tolerance."""
    family = load_family(name, task)
    model.eval()
    fused, path = folder / "fused.onnx", folder / "model.onnx"
    graph, expected = build_graph(family, model)
    onnx_ir.save(graph, fused)
    changed = write_fp32(fused, path)
    counts = count_operators(onnx_ir.load(path))
    check_fusion(counts, expected | changed)
    samples = compute_references(family, model, family.parity_batches(model.config), {})
    parity = measure_way(path, samples, find_device("cpu"), "fp32")
    assert max(record["max_abs_difference"] for record in parity) < 1e-4
    return counts, parity
