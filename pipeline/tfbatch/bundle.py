"""The folder that export writes and run reads.

    tfbatch.json              the manifest: everything below is named in it with its SHA-256
    model.onnx                one graph a precision
    model_text.onnx           graphs that are run once, before the others (labels that run is told)
    config.json               the checkpoint's configuration (labels, sizes)
    tokenizer.json            text tasks
    preprocessor_config.json  image tasks

A bundle is checked before anything in it is used: every file is named, none is a link, each has
the bytes that were verified at export, and the graphs ask for no operators but onnxruntime's own.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfbatch.errors import BadConfiguration
from tfbatch.hashes import keep_sha256, kept_sha256, sha256
from tfbatch.protobuf import operator_domains
from tfbatch.stages import start_thread

if TYPE_CHECKING:  # it imports numpy, which a hash need not wait for
    from tfbatch.pooling import Pooling

FORMAT = 1
MANIFEST = "tfbatch.json"
OPERATOR_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
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


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk whose files have been checked, its graphs as they are asked for: hashing one that
    is not run would take longer than many a job.

    It `is_verified` where export made it. What other tools made says besides which `output` of the graph
    to take, and by what `pooling` its states become one embedding where they do not in the graph.
    """

    path: Path
    manifest: Manifest
    is_verified: bool = True
    output: str | None = None
    pooling: "Pooling | None" = None

    def graph_path(self, precision: str) -> Path:
        """The ONNX file of a precision, checked.

        Raises:
            BadConfiguration: the bundle holds no such graph, it is not the one that was verified, or
                it asks for more than onnxruntime itself has.
        """
        graphs = self.manifest.graphs
        if precision not in graphs:
            raise BadConfiguration(
                f"bundle {self.path} has no {precision} graph; it holds: {', '.join(graphs)}. "
                f"Choose one of them with --precision, or export again (--int8 and --fp16 add theirs)."
            )
        return self._checked(graphs[precision])

    def side_graph(self, name: str) -> SideGraph:
        """What is known of a side graph.

        Raises:
            BadConfiguration: the bundle holds none of that name.
        """
        if name not in self.manifest.side_graphs:
            raise BadConfiguration(f"bundle {self.path} has no graph `{name}` beside its main one; export again")
        return self.manifest.side_graphs[name]

    def side_graph_path(self, name: str) -> Path:
        """The ONNX file of a side graph, checked as `graph_path` does."""
        return self._checked(self.side_graph(name))

    def _checked(self, graph: Graph) -> Path:
        path = self.path / graph.file
        check_hash(self.path, graph.file, self.manifest)
        if foreign := operator_domains(path) - OPERATOR_DOMAINS:
            raise BadConfiguration(
                f"bundle {self.path}: {path.name} asks for operators of {', '.join(sorted(foreign))}"
            )
        return path

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the bundle's results: its files' hashes, and what the manifest says of them."""
        manifest = asdict(self.manifest)
        return {name: manifest[name] for name in ("task", "labels", "inputs", "settings", "files")}

    def setting(self, name: str) -> int:
        """A number that the task needs to know of the model's inputs.

        Raises:
            BadConfiguration: the manifest has none of that name.
        """
        value = self.manifest.settings.get(name)
        if not isinstance(value, int):
            raise BadConfiguration(f"bundle {self.path}: {MANIFEST} has no number `{name}` in its settings")
        return value

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the bundle, or an empty mapping where it holds none of that name.

        Raises:
            BadConfiguration: it is not JSON, or no mapping.
        """
        if name not in self.manifest.files:
            return {}
        try:
            content = json.loads((self.path / name).read_bytes())
        except (ValueError, RecursionError) as error:
            raise BadConfiguration(f"bundle {self.path}: {name} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise BadConfiguration(f"bundle {self.path}: {name} holds no names with values")
        return content


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


def hash_ahead(path: Path, precision: str) -> None:
    """Begin to hash the graph that a run of a bundle will most likely ask for, on a thread. What is wrong with any
    of it is left for the run to find."""

    def work() -> None:
        with suppress(BadConfiguration, OSError, MemoryError, KeyError, TypeError):
            graph = path / read_manifest(path).graphs[graph_of(precision)].file
            if graph.parent == path and is_plain_file(graph):
                keep_sha256(graph)

    with suppress(RuntimeError):  # as many threads as there may be
        start_thread(work)


def load_bundle(path: Path) -> Bundle:
    """Open a bundle and check all of it but its graphs, which are when they are asked for.

    Raises:
        BadConfiguration: what is wrong, and with which file.
    """
    manifest = read_manifest(path)
    check_files(path, manifest)
    return Bundle(path=path, manifest=manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, checked for its form only."""
    file = path / MANIFEST
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BadConfiguration(
            f"{path} is not a bundle: it has no {MANIFEST}. Make one with `tfbatch export MODEL -o {path}`."
        ) from None
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
    kinds = {"files": dict, "settings": dict, "labels": list}
    if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(manifest, name), kind)]:
        raise BadConfiguration(f"{file} is not a manifest of format {FORMAT}: {', '.join(wrong)} cannot be read")
    return manifest


def check_files(path: Path, manifest: Manifest) -> None:
    """Hold the folder to its manifest: names and kinds of all files, hashes of all but the graphs."""
    entries = {entry.name: entry for entry in path.iterdir()}
    for entry in entries.values():
        if not is_plain_file(entry):
            raise BadConfiguration(f"bundle {path}: {entry.name} is a link or not a plain file")
        if entry.name != MANIFEST and entry.name not in manifest.files:
            raise BadConfiguration(f"bundle {path}: {entry.name} is not named in {MANIFEST}; remove it")
    graphs = [graph.file for graph in (*manifest.graphs.values(), *manifest.side_graphs.values())]
    for name in graphs:
        if not isinstance(name, str) or name not in manifest.files:
            raise BadConfiguration(f"bundle {path}: {name} has no SHA-256 in {MANIFEST}")
        if Path(name).suffix != ".onnx":  # by which onnxruntime tells ONNX from its own format
            raise BadConfiguration(f"bundle {path}: {name} is not named as an ONNX file")
    for name in manifest.files:
        if name not in entries:  # nor are ".." and what lies elsewhere
            raise BadConfiguration(f"bundle {path}: {name} is missing; export or copy the bundle again")
        if name not in graphs:
            check_hash(path, name, manifest)


def is_plain_file(path: Path) -> bool:
    """Whether a name is the only one of a file: no link, symbolic or hard."""
    return not path.is_symlink() and path.is_file() and path.stat().st_nlink == 1


def check_hash(path: Path, name: str, manifest: Manifest) -> None:
    """Refuse a file that is not the one the manifest was written for."""
    if kept_sha256(path / name) != manifest.files[name]:
        raise BadConfiguration(f"bundle {path}: {name} is not the file that was verified at export")


def hash_files(path: Path) -> dict[str, str]:
    """File name to SHA-256 for all files of a folder but the manifest, in order of name."""
    files = sorted(entry for entry in path.iterdir() if entry.name != MANIFEST)
    return {entry.name: sha256(entry) for entry in files}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder of finished files."""
    (path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
