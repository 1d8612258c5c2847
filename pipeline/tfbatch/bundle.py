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
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfbatch.bundles.manifest import MANIFEST, Graph, Manifest, SideGraph, graph_of, read_manifest
from tfbatch.bundles.protobuf import operator_domains
from tfbatch.errors import BadConfiguration
from tfbatch.host.hashes import keep_sha256, kept_sha256, sha256
from tfbatch.stages import start_thread

if TYPE_CHECKING:  # it imports numpy, which a hash need not wait for
    from tfbatch.bundles.pooling import Pooling

TURN = 0.0005  # seconds that a thread keeps Python to itself while a graph is hashed; 0.005 is usual
OPERATOR_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


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

    @property
    def longest(self) -> int | None:
        """The most tokens that an input is cut at; None where that is no setting of its task's."""
        length = self.manifest.settings.get("max_length")
        return length if isinstance(length, int) else None

    def named_labels(self) -> list[str]:
        """The labels of the model's logits.

        Raises:
            BadConfiguration: it has none.
        """
        if not self.manifest.labels:
            raise BadConfiguration(f"bundle {self.path} names no labels, which {self.manifest.task} needs")
        return self.manifest.labels

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


def hash_ahead(path: Path, precision: str) -> None:
    """Begin to hash the graph that a run of a bundle will most likely ask for, on a thread. What is wrong with any
    of it is left for the run to find."""

    def work() -> None:
        with short_turns(), suppress(BadConfiguration, OSError, MemoryError, KeyError, TypeError):
            graph = path / read_manifest(path).graphs[graph_of(precision)].file
            if graph.parent == path and is_plain_file(graph):
                keep_sha256(graph)

    with suppress(RuntimeError):  # as many threads as there may be
        start_thread(work)


@contextmanager
def short_turns() -> Iterator[None]:
    """Within, no thread keeps Python to itself for longer than TURN: who hashes lets go of it for each block, and
    has to get it back."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def load_bundle(path: Path) -> Bundle:
    """Open a bundle and check all of it but its graphs, which are when they are asked for.

    Raises:
        BadConfiguration: what is wrong, and with which file.
    """
    manifest = read_manifest(path)
    check_files(path, manifest)
    return Bundle(path=path, manifest=manifest)


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
