"""Proof that a graph computes what its checkpoint does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tfbatch.errors import ExportNotVerified
from tfbatch.session import Session, find_device
from transformers import PreTrainedModel

from tfbatch_export.families import Family, Tensors

TOLERANCE = 1e-4  # largest absolute difference of logits or normalised pixels, float32

Parity = dict[str, Any]


@torch.inference_mode()
def measure_parity(graph: Path, family: Family, model: PreTrainedModel, batches: Mapping[str, Tensors]) -> list[Parity]:
    """Compare a graph with PyTorch on each batch, in float32 on the CPU.

    Returns:
        For each batch its shape, the largest absolute difference of the outputs and, of logits, the
        share of rows whose largest is the same.
    """
    session = Session(graph, find_device("cpu"))
    if family.attention is not None:
        model.set_attn_implementation("sdpa")
    parity = []
    for name, inputs in batches.items():
        reference = family.reference(model, inputs).numpy()
        found = session.run({name: tensor.numpy() for name, tensor in inputs.items()})
        difference = float(np.abs(found - reference).max()) if found.shape == reference.shape else float("inf")
        record: Parity = {"batch": name, "max_abs_difference": difference}
        if family.output == "logits":
            same = (found.argmax(-1) == reference.argmax(-1)).mean() if np.isfinite(difference) else 0
            record["label_agreement"] = float(same)
        parity.append(record)
    return parity


def check_parity(parity: list[Parity], tolerance: float) -> None:
    """Hold a graph to its checkpoint.

    Raises:
        ExportNotVerified: a difference over the tolerance (or not a number), or another label.
    """
    for record in parity:
        agreement = record.get("label_agreement")
        if not record["max_abs_difference"] <= tolerance or agreement not in (None, 1):
            labels = "" if agreement is None else f" and gives the same label for {agreement:.1%} of rows"
            raise ExportNotVerified(
                f"the graph is not the checkpoint: on a batch of {record['batch']} it differs from PyTorch by "
                f"{record['max_abs_difference']:.2e} ({tolerance:.0e} is allowed){labels}."
            )
