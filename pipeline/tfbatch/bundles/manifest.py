"""A bundle's manifest, `tfbatch.json`: what is in it, and what was proved of that."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfbatch.errors import BadConfiguration

FORMAT = 1
MANIFEST = "tfbatch.json"
KINDS = {"task": str, "family": str, "source": dict, "files": dict, "settings": dict, "labels": list, "inputs": list}
GRAPH_KINDS = {"file": str, "fused": dict, "expected": dict, "proofs": dict, "parity": list, "kept_in_fp32": list}
GRAPHS = {"auto": "fp32", "bf16": "fp32"}  # from whose graph it is computed; auto: on processors


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file and what was proved of it.

    `fused` and `expected` count operators by type; `parity` holds one record for each device,
    precision and shape of batch, `max_abs_difference` being that of the outputs from PyTorch's in
    float32, and `cosine` theirs; `tolerance` is how large that difference may be in float32.
    `proofs` says by way to compute (see `way_of`) whether it is near enough; `kept_in_fp32` names the
    nodes of a graph in float16 that compute in float32.
    """

    file: str
    layers: int
    fused: dict[str, int]
    expected: dict[str, int]
    tolerance: float
    parity: list[dict[str, Any]]
    proofs: dict[str, bool] = field(default_factory=dict)
    kept_in_fp32: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SideGraph(Graph):
    """A graph that makes an input of the main ones, once for all rows; in float32, with inputs of its own."""

    inputs: list[str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is: all that run must know, and where it came from."""

    task: str
    family: str
    source: dict[str, Any]
    labels: list[str]
    inputs: list[str]
    settings: dict[str, Any]
    graphs: dict[str, Graph]
    versions: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    side_graphs: dict[str, SideGraph] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def way_of(facts: dict[str, Any]) -> str:
    """A way to compute a graph by its device, precision and the type of activations: `openvino int8 bf16`.

    Manifests of before there were several say nothing of it.
    """
    return f"{facts.get('device', 'cpu')} {facts.get('precision', 'fp32')} {facts.get('arithmetic', 'f32')}"


def mean(records: list[dict[str, Any]], name: str) -> float | None:
    """The mean of a figure over all rows; None where no record has it."""
    having = [(float(record[name]), int(record.get("rows", 1))) for record in records if record.get(name) is not None]
    rows = sum(count for _, count in having)
    return sum(value * count for value, count in having) / rows if rows else None


def graph_of(precision: str) -> str:
    """Which of a bundle's graphs a precision is computed from."""
    return GRAPHS.get(precision, precision)


def why_none(path: Path) -> str:
    """Why there is no bundle at a path, and what may have been meant."""
    if not path.is_dir():
        return "it is a file, and a bundle is a folder." if path.exists() else "there is nothing of that name."
    if bundles := sorted(str(manifest.parent) for manifest in path.glob(f"*/{MANIFEST}")):
        return f"it holds some, name one of them: {', '.join(bundles)}."
    return f"it has no {MANIFEST}. Make one with `tfbatch export MODEL -o {path}`."


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, checked for its form only."""
    file = path / MANIFEST
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BadConfiguration(f"{path} is not a bundle: {why_none(path)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfiguration(f"{file} cannot be read: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise BadConfiguration(f"{file} has format {found}, this tfbatch reads {FORMAT}; export again")
    try:
        graphs = {name: Graph(**graph) for name, graph in content["graphs"].items()}
        side_graphs = {name: SideGraph(**graph) for name, graph in content.get("side_graphs", {}).items()}
        manifest = Manifest(**{**content, "graphs": graphs, "side_graphs": side_graphs})
    except (KeyError, TypeError, AttributeError) as error:
        raise BadConfiguration(f"{file} is not a manifest of format {FORMAT}: {error}") from error
    parts = [(manifest, KINDS), *((graph, GRAPH_KINDS) for graph in [*graphs.values(), *side_graphs.values()])]
    if wrong := [name for part, kinds in parts for name in kinds if not isinstance(getattr(part, name), kinds[name])]:
        raise BadConfiguration(f"{file} is not a manifest of format {FORMAT}: {', '.join(wrong)} cannot be read")
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder of finished files."""
    (path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
