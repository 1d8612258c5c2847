"""What is made of a graph before OpenVINO compiles it, beside onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tfbatch.host.stop import Stop
from tfbatch.runtimes.openvino_model import add_biases_to_products, bias_of_heads, source
from tfbatch.runtimes.openvino_session import OpenVinoSession, load_openvino

WIDTH, HEADS = 16, 2


def attention(path: Path, *, values: int = WIDTH, shares_query: bool = False, dtype: Any = np.float32) -> Path:
    """A graph of one attention: x (rows, tokens, 16) to (rows, tokens, `values`), with the query beside it."""
    random = np.random.default_rng(0)
    widths = {"query": WIDTH, "key": WIDTH, "value": values}
    weights = {f"{name}_weight": random.standard_normal((WIDTH, width)) / 4 for name, width in widths.items()}
    weights["bias"] = random.standard_normal(sum(widths.values()))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("MatMul", ["x", f"{name}_weight"], [name]) for name in widths]
    nodes.append(
        helper.make_node("MultiHeadAttention", [*widths, "bias"], ["y"], domain="com.microsoft", num_heads=HEADS)
    )
    outputs = {"y": values, "query": WIDTH} if shares_query else {"y": values}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", kind, ["rows", "tokens", WIDTH])],
        [helper.make_tensor_value_info(name, kind, [None, None, width]) for name, width in outputs.items()],
        [numpy_helper.from_array(weight.astype(dtype), name) for name, weight in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def additions(model: Any) -> list[Any]:
    """Those of biases after the heads are apart."""
    return [add for add in model.get_ordered_ops() if add.get_type_name() == "Add" and bias_of_heads(add) is not None]


def read(path: Path) -> Any:
    return load_openvino().Core().read_model(path)


def outputs_of(model: Any, x: Any) -> list[Any]:
    compiled = load_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled({"x": x}).values())


def rows(dtype: Any = np.float32) -> Any:
    return np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(dtype)


@pytest.mark.parametrize("shares_query", [False, True])
@pytest.mark.parametrize("values", [16, 24])
def test_biases_are_added_to_the_products_and_nothing_else_changes(
    values: int, shares_query: bool, tmp_path: Path
) -> None:
    import onnxruntime

    path = attention(tmp_path / "model.onnx", values=values, shares_query=shares_query)
    model = read(path)
    assert len(additions(model)) == 3
    add_biases_to_products(model)
    assert not additions(model)
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": rows()})
    for found, other in zip(outputs_of(model, rows()), expected, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_each_product_gets_its_own_part_of_the_bias(dtype: Any, tmp_path: Path) -> None:
    """A key's cannot be seen in what comes out: it adds the same to all scores of a query."""
    path = attention(tmp_path / "model.onnx", values=24, dtype=dtype)
    (bias,) = (numpy_helper.to_array(found) for found in onnx.load(path).graph.initializer if found.name == "bias")
    model = read(path)
    before = outputs_of(read(path), rows(dtype))
    add_biases_to_products(model)
    added = {
        source(node).get_friendly_name(): source(node, 1).data
        for node in model.get_ops()
        if node.get_type_name() == "Add" and source(node).get_type_name() == "MatMul"
    }
    names = [node.name or node.output[0] for node in onnx.load(path).graph.node[:3]]
    assert set(added) == set(names)
    for name, part in zip(names, np.split(bias, [16, 32]), strict=True):
        np.testing.assert_array_equal(added[name], part)
    for found, other in zip(outputs_of(model, rows(dtype)), before, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-5)


def test_a_session_adds_no_bias_apart(tmp_path: Path) -> None:
    session = OpenVinoSession(attention(tmp_path / "model.onnx"), "f32", 1, Stop())
    steps = [node.get_rt_info()["layerType"].astype(str) for node in session._model.get_runtime_model().get_ops()]
    assert "FullyConnected" in steps
    assert not {"Add", "Eltwise"} & set(steps)


def test_what_is_needed_without_its_bias_is_left_as_it_is(tmp_path: Path) -> None:
    model = read(attention(tmp_path / "model.onnx"))
    model.add_results([load_openvino().opset1.result(additions(model)[0].input(0).get_source_output())])
    before = outputs_of(model, rows())
    assert len(additions(model)) == 2
    add_biases_to_products(model)
    for found, other in zip(outputs_of(model, rows()), before, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-5)


def test_a_bias_that_is_no_vector_is_left_where_it_is(tmp_path: Path) -> None:
    """One of (3N, 1) would be added by token."""
    opset, model = load_openvino().opset1, read(attention(tmp_path / "model.onnx"))
    split = source(source(additions(model)[0], 1))
    tall = opset.constant(source(split).data[:, None])
    split.input(0).replace_source_output(tall.output(0))
    model.validate_nodes_and_infer_types()
    assert not additions(model)
