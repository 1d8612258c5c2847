"""Graphs are loaded without their weights, which are mapped: they are the same graphs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from tfbatch.device import find_device, open_session
from tfbatch.errors import BadConfiguration
from tfbatch.mapped_weights import LEAST, without_weights

LARGE = np.arange(LEAST, dtype=np.float32).reshape(256, -1)


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
    content = without_weights(path)
    whole, mapped = onnx.load(path), onnx.load_model_from_string(content)
    kept = sum(len(each.raw_data) for each in mapped.graph.initializer)
    assert kept < sum(len(each.raw_data) for each in whole.graph.initializer)
    load_external_data_for_model(mapped, str(path.parent))
    for each in mapped.graph.initializer:
        each.ClearField("data_location")
    assert mapped == whole


def test_large_tensors_are_mapped_and_the_others_stay(tmp_path: Path) -> None:
    raw = numpy_helper.from_array(LARGE, "raw")
    spelled = helper.make_tensor("spelled", TensorProto.FLOAT, LARGE.shape, LARGE.ravel())
    small = numpy_helper.from_array(LARGE[:1], "small")
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph_of(raw, spelled, small).SerializeToString())
    found = onnx.load_model_from_string(without_weights(path)).graph.initializer
    mapped = {each.name for each in found if each.data_location == TensorProto.EXTERNAL}
    assert mapped == {"raw"}
    added = open_session(path, find_device("cpu")).run({"x": np.zeros_like(LARGE)})
    np.testing.assert_array_equal(added, 2 * LARGE + LARGE[:1])


def test_an_open_session_keeps_its_weights_when_its_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph_of(numpy_helper.from_array(LARGE, "weights")).SerializeToString())
    session = open_session(path, find_device("cpu"))
    (tmp_path / "other").write_bytes(bytes(path.stat().st_size))
    (tmp_path / "other").rename(path)
    np.testing.assert_array_equal(session.run({"x": np.zeros_like(LARGE)}), LARGE)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(BadConfiguration, match="not an ONNX file: byte 0 starts no field"):
        without_weights(path)
