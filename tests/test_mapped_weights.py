"""Graphs are loaded without their weights, which are mapped: they are the same graphs."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from tfbatch.bundles import mapped_weights
from tfbatch.bundles.mapped_weights import LEAST, without_weights
from tfbatch.errors import BadConfiguration
from tfbatch.runtimes import openvino_model, openvino_session
from tfbatch.runtimes.device import find_device, open_session

LARGE = np.arange(LEAST, dtype=np.float32).reshape(256, -1)
NOTHING = {"x": np.zeros_like(LARGE)}


def graph_of(*weights: TensorProto) -> onnx.ModelProto:
    """One that adds up its input and all its weights."""
    names = ["x", *(each.name for each in weights)]
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, LARGE.shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, LARGE.shape)
    node = helper.make_node("Sum", names, ["y"])
    graph = helper.make_graph([node], "adding", [taken], [made], list(weights), doc_string="with words")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("bundle", ["text_bundle", "image_bundle"])
def test_what_is_left_with_what_it_points_to_is_the_whole_graph(bundle: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(bundle) / "model.onnx"
    whole, mapped = onnx.load(path), onnx.load_model_from_string(without_weights(path))
    large = {each.name for each in whole.graph.initializer if len(each.raw_data) >= LEAST}
    assert large
    assert large == {each.name for each in mapped.graph.initializer if each.data_location == TensorProto.EXTERNAL}
    load_external_data_for_model(mapped, str(path.parent))
    for each in mapped.graph.initializer:
        each.ClearField("data_location")
    assert mapped == whole


def test_large_tensors_are_mapped_and_the_others_stay(tmp_path: Path) -> None:
    raw = numpy_helper.from_array(LARGE, "raw")
    raw.doc_string = "what is said of it stays with it"
    spelled = helper.make_tensor("spelled", TensorProto.FLOAT, LARGE.shape, LARGE.ravel())
    small = numpy_helper.from_array(LARGE[:1], "small")
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph_of(raw, spelled, small).SerializeToString())
    found = onnx.load_model_from_string(without_weights(path)).graph.initializer
    mapped = {each.name for each in found if each.data_location == TensorProto.EXTERNAL}
    assert mapped == {"raw"}
    session = open_session(path, find_device("cpu"))
    assert str(path) in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(session.run(NOTHING), 2 * LARGE + LARGE[:1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph that adds weights to its input."""
    (tmp_path / "graph.onnx").write_bytes(graph_of(numpy_helper.from_array(LARGE, "weights")).SerializeToString())
    return tmp_path / "graph.onnx"


def test_an_open_session_keeps_its_weights_when_its_file_is_replaced(path: Path, tmp_path: Path) -> None:
    session = open_session(path, find_device("cpu"))
    (tmp_path / "other").write_bytes(bytes(path.stat().st_size))
    (tmp_path / "other").rename(path)
    np.testing.assert_array_equal(session.run(NOTHING), LARGE)


def test_results_are_refused_when_the_file_has_been_written_to(path: Path) -> None:
    session = open_session(path, find_device("cpu"))
    session.run(NOTHING)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    with pytest.raises(BadConfiguration, match=r"graph.onnx was written to while it was used"):
        session.run(NOTHING)


def test_openvino_takes_the_weights_from_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_model, "os", None)  # without which the file itself is not read
    session = open_session(path, find_device("openvino"))
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))  # it has its own by now
    np.testing.assert_array_equal(session.run(NOTHING), LARGE)


def test_openvino_reads_the_file_where_it_takes_no_weights_from_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_weights, "IN_MEMORY", "nowhere")
    np.testing.assert_array_equal(open_session(path, find_device("openvino")).run(NOTHING), LARGE)


def test_a_graph_that_is_written_to_while_openvino_reads_it_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(path, (0, 0))
    read = openvino_session.read_model

    def overwritten(core: object, content: bytes, graph: Path) -> object:
        with path.open("r+b") as file:
            file.write(path.read_bytes())
        return read(core, content, graph)

    monkeypatch.setattr(openvino_session, "read_model", overwritten)
    with pytest.raises(BadConfiguration, match=r"graph.onnx was written to while it was used"):
        open_session(path, find_device("openvino"))


def test_a_graph_is_found_by_any_of_its_names(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("graph.onnx", "./graph.onnx", "a link/graph.onnx"):
        np.testing.assert_array_equal(open_session(Path(name), find_device("cpu")).run(NOTHING), LARGE)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(BadConfiguration, match="not an ONNX file: byte 0 starts no field"):
        without_weights(tmp_path / "words")
    for device in map(find_device, ("cpu", "openvino")):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(BadConfiguration, match="cannot be read"):
                open_session(path, device)
    for path in (tmp_path / "words", tmp_path / "empty"):
        with pytest.raises(BadConfiguration, match="not an ONNX file"):
            open_session(path, find_device("openvino"))
