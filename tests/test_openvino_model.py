"""What is made of a graph before OpenVINO compiles it, beside onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tfbatch.openvino_model import add_biases_to_products, bias_of_heads
from tfbatch.openvino_session import load_openvino

WIDTH, HEADS = 16, 2


def attention(path: Path, *, values: int, shares_query: bool) -> Path:
    """A graph of one attention: x (rows, tokens, 16) to (rows, tokens, `values`), with the query beside it."""
    random = np.random.default_rng(0)
    widths = {"query": WIDTH, "key": WIDTH, "value": values}
    weights = {f"{name}_weight": random.standard_normal((WIDTH, width)) for name, width in widths.items()}
    weights["bias"] = random.standard_normal(sum(widths.values()))
    nodes = [helper.make_node("MatMul", ["x", f"{name}_weight"], [name]) for name in widths]
    nodes.append(
        helper.make_node("MultiHeadAttention", [*widths, "bias"], ["y"], domain="com.microsoft", num_heads=HEADS)
    )
    outputs = {"y": values, "query": WIDTH} if shares_query else {"y": values}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, width])
            for name, width in outputs.items()
        ],
        [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def additions(model: Any) -> list[Any]:
    """Those of biases after the heads are apart."""
    return [add for add in model.get_ordered_ops() if add.get_type_name() == "Add" and bias_of_heads(add) is not None]


@pytest.mark.parametrize("shares_query", [False, True])
@pytest.mark.parametrize("values", [16, 24])
def test_biases_are_added_to_the_products_and_nothing_else_changes(
    values: int, shares_query: bool, tmp_path: Path
) -> None:
    import onnxruntime

    path = attention(tmp_path / "model.onnx", values=values, shares_query=shares_query)
    core = load_openvino().Core()
    model = core.read_model(path)
    assert len(additions(model)) == 3
    add_biases_to_products(model)
    assert not additions(model)
    x = np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(np.float32)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    for found, other in zip(compiled({"x": x}).values(), expected, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-5)


def test_what_is_needed_without_its_bias_is_left_as_it_is(tmp_path: Path) -> None:
    """Something after the heads are apart that wants them without it: no other addition may give it."""
    opset = load_openvino().opset13
    core = load_openvino().Core()
    model = core.read_model(attention(tmp_path / "model.onnx", values=16, shares_query=False))
    add = next(
        node for node in model.get_ordered_ops() if node.get_type_name() == "Add" and bias_of_heads(node) is not None
    )
    transposed = add.input(0).get_source_output()
    model.add_results([opset.result(transposed)])
    before = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert len(additions(model)) == 2
    add_biases_to_products(model)
    after = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(np.float32)
    for found, other in zip(after({"x": x}).values(), before({"x": x}).values(), strict=True):
        np.testing.assert_allclose(found, other, atol=1e-5)
