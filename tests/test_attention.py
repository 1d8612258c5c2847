"""Attention taken apart into products of its own and MultiHeadAttention."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tfbatch_export.precision import write_fp32
from tfbatch_export.quantization.int8 import write_int8
from tfbatch_export.rewrites.attention import has_row_lengths, is_plain_attention, take_apart
from tfbatch_export.rewrites.values import add_constant

HIDDEN, HEADS, LAYERS = 32, 4, 3


def make_graph(path: Path, *, row_lengths: bool, shared: bool) -> ir.Model:
    """Attention after Attention over states (batch, tokens, 32), of the same weights or each of its own."""
    states = ir.Value(name="states", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", "tokens", HIDDEN]))
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"]))
    opsets = {"": 18, "com.microsoft": 1}
    graph = ir.Graph([states, lengths], [], nodes=[], name="made", opset_imports=opsets)
    random = np.random.default_rng(0)
    found = states
    for layer in range(LAYERS):
        name = "" if shared else str(layer)
        if not shared or not layer:
            weights = add_constant(graph, f"weights{name}", random.normal(0, 0.3, (HIDDEN, 3 * HIDDEN)).astype("f4"))
            bias = add_constant(graph, f"bias{name}", random.normal(0, 0.3, 3 * HIDDEN).astype("f4"))
        inputs = [found, weights, bias, *([lengths] if row_lengths else [])]
        node = ir.node("Attention", inputs, {"num_heads": HEADS}, domain="com.microsoft")
        graph.append(node)
        found = node.outputs[0]
        found.type, found.shape = states.type, states.shape
    found.name = "found"
    graph.outputs.append(found)
    model = ir.Model(graph, ir_version=10)
    ir.save(model, path)
    return model


def compute(path: Path) -> np.ndarray:
    """What a graph makes of two rows of five and three tokens; of the second what its tokens get."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    states = np.random.default_rng(1).standard_normal((2, 5, HIDDEN)).astype(np.float32)
    (found,) = session.run(None, {"states": states, "lengths": np.array([5, 3], np.int32)})
    return np.concatenate([found[0], found[1, :3]])


@pytest.mark.parametrize("shared", [False, True], ids=["each its weights", "all the same"])
def test_rows_of_several_lengths_are_projected_together_to_the_same_numbers(shared: bool, tmp_path: Path) -> None:
    fused, made = tmp_path / "fused.onnx", tmp_path / "model.onnx"
    make_graph(fused, row_lengths=True, shared=shared)
    assert write_fp32(fused, made) == {"Attention": 0, "MultiHeadAttention": LAYERS}
    graph = ir.load(made).graph
    operators = [node.op_type for node in graph]
    assert operators == ["MatMul", "MatMul", "MatMul", "MultiHeadAttention"] * LAYERS
    matrices = [value for value in graph.initializers.values() if value.shape is not None and value.shape.rank() == 2]
    assert [tuple(value.shape or ()) for value in matrices] == [(HIDDEN, HIDDEN)] * (3 if shared else 3 * LAYERS)
    assert np.abs(compute(fused) - compute(made)).max() < 1e-5


def test_rows_of_one_length_keep_their_attention_in_fp32_but_not_in_8_bits(tmp_path: Path) -> None:
    fused, whole, reduced = (tmp_path / name for name in ("fused.onnx", "model.onnx", "model_int8.onnx"))
    make_graph(fused, row_lengths=False, shared=False)
    assert write_fp32(fused, whole) == {}
    assert [node.op_type for node in ir.load(whole).graph] == ["Attention"] * LAYERS
    in_blocks = {"MatMulNBits": 3 * LAYERS, "QuantizeLinear": 0}
    assert write_int8(fused, reduced, {}) == {"Attention": 0, "MultiHeadAttention": LAYERS} | in_blocks


@pytest.mark.parametrize("attribute", ["unidirectional", "do_rotary"])
def test_an_attention_that_does_more_is_left_alone(attribute: str, tmp_path: Path) -> None:
    model = make_graph(tmp_path / "fused.onnx", row_lengths=True, shared=False)
    node = model.graph[0]
    assert is_plain_attention(node)
    assert has_row_lengths(node)
    node.attributes[attribute] = ir.AttrInt64(attribute, 1)
    assert not is_plain_attention(node)
    ir.save(model, tmp_path / "fused.onnx")
    attentions = {"Attention": 1, "MultiHeadAttention": LAYERS - 1}
    assert write_fp32(tmp_path / "fused.onnx", tmp_path / "model.onnx") == attentions


def test_tokens_that_ask_get_what_they_got_before(tmp_path: Path) -> None:
    model = make_graph(tmp_path / "fused.onnx", row_lengths=True, shared=False)
    whole = compute(tmp_path / "fused.onnx").reshape(8, HIDDEN)
    graph = model.graph
    last = graph[-1]
    bounds = [add_constant(graph, name, np.array([value])) for name, value in (("from", 0), ("to", 2), ("axis", 1))]
    leading = ir.node("Slice", [last.inputs[0], *bounds])
    leading.outputs[0].shape = ir.Shape(["batch", 2, HIDDEN])
    graph.insert_before(last, leading)
    take_apart(graph, last, leading.outputs[0])
    ir.save(model, tmp_path / "leading.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "leading.onnx", providers=["CPUExecutionProvider"])
    states = np.random.default_rng(1).standard_normal((2, 5, HIDDEN)).astype(np.float32)
    (found,) = session.run(None, {"states": states, "lengths": np.array([5, 3], np.int32)})
    assert np.abs(found[0] - whole[:2]).max() < 1e-5
    assert np.abs(found[1] - whole[5:7]).max() < 1e-5


def test_a_constant_is_added_once_and_never_in_the_place_of_another() -> None:
    graph = ir.Graph([], [], nodes=[], name="made", opset_imports={"": 18})
    one = add_constant(graph, "axis", np.array([1]))
    assert add_constant(graph, "axis", np.array([1])) is one
    two = add_constant(graph, "axis", np.array([2]))
    assert add_constant(graph, "axis", np.array([2])) is two
    three = add_constant(graph, "axis", np.array([1.0]))
    assert three not in (one, two)
    assert {name: value.const_value.numpy().tolist() for name, value in graph.initializers.items()} == {
        "axis": [1], "axis_": [2], "axis__": [1.0],
    }  # fmt: skip
