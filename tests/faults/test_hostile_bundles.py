"""Bundles and checkpoints that somebody else has had a hand in: refused before a session exists."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import Finished, run_tfbatch, tfbatch_env
from onnx import TensorProto, helper
from tfbatch.bundles.protobuf import operator_domains
from tfbatch.errors import BadConfiguration, NoInput
from tfbatch.host.hashes import sha256
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export

pytestmark = pytest.mark.faults

Tamper = Callable[[onnx.ModelProto], None]


@pytest.fixture
def copy(text_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in text_bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def run_without_sessions(bundle: Path, reviews: Path, tmp_path: Path) -> Finished:
    """A run that ends in another way where a session, or so much as its options, is made."""
    trap = tmp_path / "trap"
    trap.mkdir(exist_ok=True)
    (trap / "sitecustomize.py").write_text(
        "import onnxruntime\n"
        "def refuse(*a, **k): raise SystemExit('a session was made')\n"
        "onnxruntime.InferenceSession = onnxruntime.SessionOptions = refuse\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(trap), tfbatch_env()["PYTHONPATH"]])}
    return run_tfbatch("run", reviews, "-m", bundle, "-o", tmp_path / "out", env=paths)


def refused(bundle: Path, reviews: Path, tmp_path: Path) -> str:
    """What a run says that must refuse a bundle."""
    done = run_without_sessions(bundle, reviews, tmp_path)
    assert done.code == 78, done
    assert "a session was made" not in done.err + done.out
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    return done.err


def test_a_whole_bundle_does_reach_a_session(copy: Path, reviews: Path, tmp_path: Path) -> None:
    done = run_without_sessions(copy, reviews, tmp_path)
    assert "a session was made" in done.err


def write_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "tfbatch.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def rehash(bundle: Path, **more: str) -> None:
    """Make the manifest fit what was changed, as whoever tampers would."""
    names = [file.name for file in bundle.iterdir() if file.name != "tfbatch.json"]
    write_manifest(bundle, files={name: sha256(bundle / name) for name in names} | more)


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer.json"])
def test_a_changed_byte_is_refused(name: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert f"{name} is not the file that was verified" in refused(copy, reviews, tmp_path)


@pytest.mark.parametrize("kind", ["file", "symlink", "hard link", "folder", "named pipe"])
def test_whatever_else_lies_in_the_folder_is_refused(kind: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    more = copy / "more.onnx"
    match kind:
        case "file":
            more.write_bytes(b"x")
        case "symlink":
            more.symlink_to("/etc/hostname")
        case "hard link":
            os.link(copy / "config.json", more)
        case "folder":
            more.mkdir()
        case "named pipe":
            os.mkfifo(more)
    message = refused(copy, reviews, tmp_path)
    assert ("more.onnx is not named" if kind == "file" else "is a link or not a plain file") in message


@pytest.mark.parametrize("name", ["../model.onnx", "..", ".", "", "/etc/hostname", "a/../model.onnx", "model.onnx\0"])
def test_names_that_lead_elsewhere_are_refused(name: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((copy / "model.onnx").read_bytes())
    rehash(copy, **{name: sha256(copy / "model.onnx")})
    assert "is missing" in refused(copy, reviews, tmp_path)


def node(domain: str = "") -> onnx.NodeProto:
    return helper.make_node("Identity", ["x"], ["y"], domain=domain)


def graph(*nodes: onnx.NodeProto, tensor: onnx.TensorProto | None = None) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "inner", [], [], initializer=[tensor] if tensor else [])


def outside(location: str = "weights.bin") -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def function(*nodes: onnx.NodeProto, domain: str = "evil") -> onnx.FunctionProto:
    imports = [helper.make_opsetid(domain, 1)]
    return helper.make_function("com.microsoft", "F", ["x"], ["y"], list(nodes), imports)


def with_attribute(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **attributes)


FOREIGN: dict[str, Tamper] = {
    "an import": lambda model: model.opset_import.append(helper.make_opsetid("evil", 1)),
    "a node that imports nothing": lambda model: model.graph.node.append(node("evil")),
    "an import of a function": lambda model: model.functions.append(function(node())),
    "a node of a function": lambda model: model.functions.append(function(node("evil"), domain="")),
    "a node of a subgraph": lambda model: model.graph.node.append(with_attribute(body=graph(node("evil")))),
    "a node of one of several subgraphs": lambda model: model.graph.node.append(
        with_attribute(bodies=[graph(node()), graph(with_attribute(body=graph(node("evil"))))])
    ),
    "a training graph": lambda model: model.training_info.add().algorithm.CopyFrom(graph(node("evil"))),
}
SPARSE = onnx.SparseTensorProto(values=outside(), dims=[4])
MEMORY = "*/_ORT_MEM_ADDR_/*"
OUTSIDE: dict[str, Tamper] = {
    "a weight": lambda model: model.graph.initializer.append(outside()),
    "an address in memory": lambda model: model.graph.initializer.append(outside(MEMORY)),
    "an attribute": lambda model: model.graph.node.append(with_attribute(value=outside(MEMORY))),
    "an attribute's list": lambda model: model.graph.node.append(with_attribute(values=[outside()])),
    "a sparse weight": lambda model: model.graph.sparse_initializer.append(SPARSE),
    "a sparse attribute": lambda model: model.graph.node.append(with_attribute(sparse_value=SPARSE)),
    "a subgraph": lambda model: model.graph.node.append(with_attribute(body=graph(tensor=outside()))),
    "a function": lambda model: model.functions.append(function(with_attribute(value=outside(MEMORY)), domain="")),
    "a function's default": lambda model: model.functions.add().attribute_proto.append(
        helper.make_attribute("value", outside())
    ),
    "a training graph": lambda model: model.training_info.add().initialization.CopyFrom(graph(tensor=outside())),
}


def tamper(bundle: Path, change: Tamper) -> None:
    model = onnx.load(bundle / "model.onnx")
    change(model)
    onnx.save(model, bundle / "model.onnx")
    rehash(bundle)


@pytest.mark.parametrize("place", FOREIGN)
def test_foreign_operators_are_refused_wherever_they_are(place: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    tamper(copy, FOREIGN[place])
    assert "asks for operators of evil" in refused(copy, reviews, tmp_path)


@pytest.mark.parametrize("place", OUTSIDE)
def test_weights_outside_of_the_graph_are_refused_wherever_they_are(
    place: str, copy: Path, reviews: Path, tmp_path: Path
) -> None:
    tamper(copy, OUTSIDE[place])
    assert "has weights outside of itself" in refused(copy, reviews, tmp_path)


def varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_tag_that_onnxruntime_reads_as_another_is_refused(copy: Path, reviews: Path, tmp_path: Path) -> None:
    hidden = outside().SerializeToString().replace(varint(13 << 3 | 2), varint((13 << 3 | 2) + (1 << 32)))
    hidden = hidden.replace(varint(14 << 3) + b"\x01", varint((14 << 3) + (1 << 32)) + b"\x01")
    content = (copy / "model.onnx").read_bytes() + field(7, field(5, hidden))
    (copy / "model.onnx").write_bytes(content)
    rehash(copy)
    assert "is not an ONNX file" in refused(copy, reviews, tmp_path)


HOSTILE = {
    "nothing": b"",
    "an endless number": b"\x80" * 100,
    "a length of more than there is": varint(7 << 3 | 2) + varint(1 << 62),
    "a group": varint(7 << 3 | 3),
    "a number cut off": field(8, b"") + b"\x08\x80",
    "bytes that are no domain": field(8, field(1, b"\xff\xfe")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_are_no_model_are_refused(name: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").write_bytes(HOSTILE[name])
    rehash(copy)
    assert "is not an ONNX file" in refused(copy, reviews, tmp_path)


def test_graphs_that_lie_in_one_another_without_end_are_refused(tmp_path: Path) -> None:
    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(8, b"") + field(7, inner))
    with pytest.raises(BadConfiguration, match="too deep"):
        operator_domains(path)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_file_that_cannot_be_read_is_the_bundles_fault(name: str, copy: Path, reviews: Path, tmp_path: Path) -> None:
    (copy / name).write_bytes(b"[" * 100_000)
    rehash(copy)
    assert name in refused(copy, reviews, tmp_path)


def test_a_graph_by_another_name_is_refused(copy: Path, reviews: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").rename(copy / "model.ort")
    rehash(copy)
    graphs = json.loads((copy / "tfbatch.json").read_text())["graphs"]
    graphs["fp32"]["file"] = "model.ort"
    write_manifest(copy, graphs=graphs)
    assert "is not named as an ONNX file" in refused(copy, reviews, tmp_path)


def checkpoint_copy(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_export_opens_no_pickle_even_beside_a_configuration(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = checkpoint_copy(text_checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    witness = tmp_path / "opened"
    (folder / "pytorch_model.bin").write_bytes(f"cposix\nsystem\n(S'touch {witness}'\ntR.".encode())
    with pytest.raises(BadConfiguration, match="can run code when opened"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))
    assert not witness.exists()
    assert not (tmp_path / "bundle").exists()


def test_export_runs_no_code_of_a_checkpoints(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = checkpoint_copy(text_checkpoint, tmp_path / "remote")
    witness = tmp_path / "run"
    (folder / "mine.py").write_text(f"open({str(witness)!r}, 'w')\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "mine.Model"}}))
    with pytest.raises(BadConfiguration, match="code of its own"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))
    assert not witness.exists()


def test_a_revision_that_stands_for_no_commit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    def no_such(self: HfApi, model: str, *, revision: str | None = None) -> None:
        raise OSError(f"404: no revision {revision}")

    monkeypatch.setattr(HfApi, "model_info", no_such)
    with pytest.raises(NoInput, match="revision v9 of org/name is neither a folder nor to be had"):
        export(ExportConfig(model="org/name", revision="v9", output=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []
