"""Proof that a graph computes what its checkpoint does, by each runtime there is."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tfbatch.device import find_device, open_session
from tfbatch.errors import BadConfiguration, ExportNotVerified
from tfbatch.openvino_session import has_bf16
from tfbatch.session import Device
from transformers import PreTrainedModel

from tfbatch_export.families import Family, Tensors

TOLERANCE = 1e-4  # largest absolute difference of logits or normalised pixels, float32
COSINE = 0.99  # of outputs with PyTorch's, at least, in the mean over rows
AGREEMENT = 0.98  # least share of rows with PyTorch's label, in reduced precision

Parity = dict[str, Any]
Outputs = dict[str, npt.NDArray[np.float32]]


@torch.inference_mode()
def reference_outputs(family: Family, model: PreTrainedModel, batches: Mapping[str, Tensors]) -> Outputs:
    """What PyTorch makes of each batch, in float32 on the CPU."""
    if family.attention is not None:
        model.set_attn_implementation("sdpa")
    return {name: family.reference(model, inputs).numpy() for name, inputs in batches.items()}


def measure_parity(
    graph: Path, batches: Mapping[str, Tensors], references: Outputs, *, precision: str = "fp32", labels: bool
) -> list[Parity]:
    """Compare a graph with PyTorch on each batch, by each runtime that can load it.

    Returns:
        For each runtime and batch the rows, the largest absolute difference of the outputs, their
        cosine and, where the outputs are logits of `labels`, the share of rows whose largest is the same.
    """
    parity = []
    for device, computed in ways(precision):
        try:
            session = open_session(graph, device, computed)
        except BadConfiguration:
            if device.runtime == "cpu":
                raise
            continue  # a second runtime that lacks an operator says so when it is asked for
        for name, inputs in batches.items():
            found = session.run({name: tensor.numpy() for name, tensor in inputs.items()})
            record: Parity = {"device": device.name, "precision": computed, "batch": name, "rows": len(found)}
            parity.append(record | compare(found, references[name], labels=labels))
    return parity


def ways(precision: str) -> Iterator[tuple[Device, str]]:
    """How a graph of a precision can be run here on the processor: device, and precision as it is asked for."""
    yield find_device("cpu"), precision
    if find_spec("openvino"):
        yield find_device("openvino"), precision
        if precision == "fp32" and has_bf16():
            yield find_device("openvino"), "bf16"


def compare(found: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], *, labels: bool) -> Parity:
    """How far outputs (B, ...) are from a reference."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return {"max_abs_difference": float("inf"), "cosine": 0.0} | ({"label_agreement": 0.0} if labels else {})
    product = float(np.vdot(found, reference)) / float(np.linalg.norm(found) * np.linalg.norm(reference) or 1)
    record: Parity = {"max_abs_difference": float(np.abs(found - reference).max()), "cosine": product}
    if labels:
        record["label_agreement"] = float((found.argmax(-1) == reference.argmax(-1)).mean())
    return record


def check_parity(parity: list[Parity], tolerance: float = TOLERANCE) -> None:
    """Hold a graph to its checkpoint.

    Raises:
        ExportNotVerified: in float32 a difference over the tolerance (or not a number), or another
            label; in reduced precision outputs that point elsewhere, or too many other labels.
    """
    for record in parity:
        exact = record["precision"] == "fp32"
        if exact and (record["max_abs_difference"] > tolerance or record.get("label_agreement", 1) < 1):
            labels = ""
            if "label_agreement" in record:
                labels = f" and gives the same label for {record['label_agreement']:.1%} of rows"
            raise ExportNotVerified(
                f"the graph is not the checkpoint: on a batch of {record['batch']} it differs from PyTorch by "
                f"{record['max_abs_difference']:.2e} ({tolerance:.0e} is allowed){labels}."
            )
    for name, least in (("cosine", COSINE), ("label_agreement", AGREEMENT)):
        for (device, precision), found in means(parity, name).items():
            if not found >= least:
                raise ExportNotVerified(
                    f"{precision} is too far from the checkpoint: by {device} its {name.replace('_', ' ')} with "
                    f"PyTorch, over all rows compared, is {found:.4f} ({least} is asked for)."
                )


def means(parity: list[Parity], name: str) -> dict[tuple[str, str], float]:
    """The mean of a figure over all rows compared, by device and precision."""
    total: dict[tuple[str, str], float] = {}
    rows: dict[tuple[str, str], int] = {}
    for record in parity:
        if name in record:
            way = (record["device"], record["precision"])
            total[way] = total.get(way, 0) + record[name] * record["rows"]
            rows[way] = rows.get(way, 0) + record["rows"]
    return {way: total[way] / rows[way] for way in total}
