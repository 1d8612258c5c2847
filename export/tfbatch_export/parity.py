"""Proof that a graph computes what its checkpoint does, by each runtime there is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tfbatch.bundles.manifest import mean, way_of
from tfbatch.errors import BadConfiguration, ExportNotVerified
from tfbatch.host.machine import available_threads, is_overflowing, processor_flags
from tfbatch.runtimes.device import arithmetic, find_device, open_session
from tfbatch.runtimes.openvino_session import has_bf16
from tfbatch.session import Device
from tfbatch.stages import overlap
from transformers import PreTrainedModel

from tfbatch_export.distance import TOLERANCE, Outputs, compare, spread_of
from tfbatch_export.families import Family, Tensors
from tfbatch_export.trace import by_pytorch

TOKENS = 3  # dimensions of outputs (B, L, ...) that each token has

Parity = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """What rows in reduced precision must come to at least: the mean cosine of their outputs with
    PyTorch's, which of lone numbers is by their spread (see `lone_cosine`), and the share that has PyTorch's label."""

    cosine: float
    label_agreement: float


# Random numbers are no rows anyone has; only fp16 is near enough to be judged on them. There are many ties
# among them and few rows: one of ten may have another label. The worst mean cosine measured was 0.99998.
REAL = {
    "fp16": Nearness(cosine=0.9995, label_agreement=0.98),
    "bf16": Nearness(cosine=0.99, label_agreement=0.98),
    "int8": Nearness(cosine=0.99, label_agreement=0.98),
}
MADE_UP = {"fp16": Nearness(cosine=0.9995, label_agreement=0.9)}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Batches by the name of their shape with what PyTorch makes of them in float32; those named in
    `real` are rows of a table. `labels` says that outputs are logits, whose largest counts, or with
    `independent` all that are positive: labels that do not exclude each other."""

    batches: Mapping[str, Tensors]
    references: Mapping[str, Outputs]
    real: frozenset[str]
    labels: bool
    independent: bool = False

    def of(self, name: str, outputs: Outputs) -> Outputs:
        """Outputs of a batch, or of its tokens (tokens, ...): what padding becomes counts for nothing."""
        if outputs.ndim != TOKENS:
            return outputs
        found: Outputs = outputs[self.batches[name]["attention_mask"].numpy().astype(bool)]
        return found

    def spread(self, precision: str, *, is_real: bool) -> float:
        """See `spread_of`; of real rows, or of those that are made up."""
        names = [name for name in self.references if (name in self.real) is is_real]
        return spread_of([self.of(name, self.references[name]) for name in names], precision)


@torch.inference_mode()
def compute_references(
    family: Family, model: PreTrainedModel, made_up: Mapping[str, Tensors], real: Mapping[str, Tensors]
) -> Samples:
    """Batches with their references, on the CPU."""
    batches = {**made_up, **real}
    implementation = model.config._attn_implementation
    if family.attention is not None:
        model.set_attn_implementation("sdpa")
    try:
        with by_pytorch("compute"):
            references = {name: family.reference(model, inputs).numpy() for name, inputs in batches.items()}
    finally:
        if family.attention is not None:
            model.set_attn_implementation(implementation)
    return Samples(
        batches=batches,
        references=references,
        real=frozenset(real),
        labels=family.output == "logits",
        independent=getattr(model.config, "problem_type", None) == "multi_label_classification",
    )


def measure_parity(graph: Path, samples: Samples, precision: str = "fp32") -> list[Parity]:
    """Compare a graph with PyTorch on each batch, by each runtime that can run it.

    Returns:
        For each way to compute and batch: the rows, the largest absolute difference of the outputs
        (None where they are no numbers), the mean cosine of a row's and, of several logits, the share of
        rows that have the same label.
    """
    parity: list[Parity] = []
    for device, computed in ways(precision):
        try:
            parity += measure_way(graph, samples, device, computed)
        except (BadConfiguration, RuntimeError):
            if device.runtime == "cpu":
                raise
            # A second runtime that lacks an operator says so when it is asked for.
    return parity


def measure_way(graph: Path, samples: Samples, device: Device, precision: str) -> list[Parity]:
    """One record a batch of a graph on a device."""
    threads = available_threads()
    session = open_session(graph, device, precision, threads)
    way = {"device": device.name, "precision": precision, "arithmetic": arithmetic(device, precision)}
    spreads = {is_real: samples.spread(precision, is_real=is_real) for is_real in (True, False)}

    def measure(name: str) -> Parity:
        reference, is_real = samples.references[name], name in samples.real
        found = session.run({feed: tensor.numpy() for feed, tensor in samples.batches[name].items()})
        if found.shape == reference.shape:
            found, reference = samples.of(name, found), samples.of(name, reference)
        record: Parity = {**way, "batch": name, "is_real": is_real, "rows": len(reference)}
        return record | compare(
            found, reference, labels=samples.labels, independent=samples.independent, spread=spreads[is_real]
        )

    return list(overlap(measure, samples.batches, workers=threads, ahead=2 * threads))


def ways(precision: str) -> Iterator[tuple[Device, str]]:
    """How a graph of a precision can be run here on the processor: device, and precision as it is asked for."""
    yield find_device("cpu"), precision
    if find_spec("openvino") and not (precision == "int8" and is_overflowing(processor_flags())):
        yield find_device("openvino"), precision
        if precision == "fp32" and has_bf16():
            yield find_device("openvino"), "bf16"


def check_parity(parity: list[Parity], precision: str) -> dict[str, bool]:
    """Hold a graph to its checkpoint, as onnxruntime computes it in the precision it is for.

    Returns:
        By way to compute, whether it is as near as it must be; of int8 and bf16 only where there
        were real rows to tell.

    Raises:
        ExportNotVerified: onnxruntime's is not.
    """
    if not parity:
        raise ExportNotVerified("nothing was compared: there is no batch that the model takes.")
    proofs = {}
    for way in dict.fromkeys(map(way_of, parity)):
        records = [record for record in parity if way_of(record) == way]
        computed = records[0]["precision"]
        is_exact = computed == "fp32"
        problem = exact_problem(records) if is_exact else reduced_problem(records)
        if problem and (records[0]["device"], computed) == ("cpu", precision):
            raise ExportNotVerified(problem)
        if is_exact or computed in MADE_UP or any(record["is_real"] for record in records):
            proofs[way] = problem is None
    return proofs


def exact_problem(records: list[Parity]) -> str | None:
    """Why a graph in float32 is not its checkpoint."""
    for record in records:
        difference, agreement = record["max_abs_difference"], record.get("label_agreement", 1)
        if difference is None or not difference <= TOLERANCE or agreement < 1:
            shown = "more than any number" if difference is None else f"{difference:.2e}"
            labels = f" and gives the same label for {agreement:.1%} of rows" if "label_agreement" in record else ""
            return (
                f"the graph is not the checkpoint: on a batch of {record['batch']} it differs from PyTorch by "
                f"{shown} ({TOLERANCE:.0e} is allowed){labels}."
            )
    return None


def reduced_problem(records: list[Parity]) -> str | None:
    """Why a graph in reduced precision is too far from its checkpoint."""
    precision = records[0]["precision"]
    if broken := next((record for record in records if record["max_abs_difference"] is None), None):
        return f"{precision}: on a batch of {broken['batch']} the outputs are no numbers, or not as many as PyTorch's."
    for kind, is_real, least in (("real", True, REAL[precision]), ("made-up", False, MADE_UP.get(precision))):
        compared = [record for record in records if record["is_real"] is is_real]
        for name in ("cosine", "label_agreement") if least else ():
            found, asked = mean(compared, name), getattr(least, name)
            if found is not None and found < asked:
                rows = sum(record["rows"] for record in compared)
                return (
                    f"{precision} is too far from the checkpoint: over {rows:,} {kind} rows its "
                    f"{name.replace('_', ' ')} with PyTorch is {found:.5f} ({asked} is asked for)."
                )
    return None
