"""A float16 graph of fewer passes over memory gives what the plain one gives."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from tfbatch_export.precision import write_fp16
from tfbatch_export.rewrites.gpu_graph import suit_gpus
from tfbatch_export.rewrites.operators import count_operators
from tfbatch_export.rewrites.query_bias import fold_query_biases
from tfbatch_export.rewrites.values import add_constant, numbers

HIDDEN, HEADS = 32, 4
RANDOM = np.random.default_rng(0)
STATES = RANDOM.normal(0, 1, (2, 5, HIDDEN)).astype("f2")
LENGTHS = np.array([5, 3], np.int32)
CONSTANTS = {"zero": 0, "one": 1, "two": 2}


class Layer:
    """A graph that is put together in one type of number."""

    def __init__(self, kind: ir.DataType, *inputs: ir.Value) -> None:
        self.kind = kind
        opsets = {"": 18, "com.microsoft": 1}
        self.graph = ir.Graph(inputs, [], nodes=[], name="layer", opset_imports=opsets)

    def weights(self, name: str, *shape: int) -> ir.Value:
        return add_constant(self.graph, name, RANDOM.normal(0, 0.5, shape).astype(self.kind.numpy()))

    def add(self, operator: str, *inputs: ir.Value | None, domain: str = "", **attributes: object) -> ir.Value:
        node = ir.node(operator, inputs, attributes, domain=domain)
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(self.kind), ir.Shape(["batch", "tokens", HIDDEN])
        self.graph.append(node)
        return node.outputs[0]

    def count(self, operator: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        """Whole numbers."""
        value = self.add(operator, *inputs, **attributes)
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), None
        return value

    def give(self, **outputs: ir.Value) -> ir.Model:
        for name, value in outputs.items():
            value.name = name
            self.graph.outputs.append(value)
        return ir.Model(self.graph, ir_version=10)


def make_layer(kind: ir.DataType, *, read_twice: bool = False, shifted: bool = True) -> ir.Model:
    """Attention with biases that matter, a product behind it, a residual sum that is given out too, and its norm."""
    states = ir.Value(name="states", type=ir.TensorType(kind), shape=ir.Shape(["batch", "tokens", HIDDEN]))
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"]))
    layer = Layer(kind, states, lengths)
    weights, bias = layer.weights("qkv", HIDDEN, 3 * HIDDEN), layer.weights("qkv_bias", 3 * HIDDEN)
    attended = layer.add("Attention", states, weights, bias, lengths, domain="com.microsoft", num_heads=HEADS)
    product = layer.add("MatMul", attended, layer.weights("out", HIDDEN, HIDDEN))
    projected = layer.add("Add", product, layer.weights("out_bias", HIDDEN))
    total = layer.add("Add", states, projected)
    norm = [layer.weights(name, HIDDEN) for name in ("scale", "shift")[: 1 + shifted]]
    normalised = layer.add("LayerNormalization", total, *norm, axis=-1, epsilon=1e-5)
    more = {"attended": attended} if read_twice else {}
    return layer.give(normalised=normalised, total=total, **more)


def compute(model: ir.Model, path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ir.save(model, path)
    return list(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds))


def suited(model: ir.Model) -> dict[str, int]:
    changed = suit_gpus(model)
    model.graph.sort()
    RemoveUnusedNodesPass()(model)
    counts = count_operators(model)
    assert {name: counts.get(name, 0) for name in changed} == changed
    return counts


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("read_twice", [False, True])
def test_a_layer_of_fewer_passes_gives_the_same(read_twice: bool, shifted: bool, tmp_path: Path) -> None:
    model = make_layer(ir.DataType.FLOAT16, read_twice=read_twice, shifted=shifted)
    feeds, names = {"states": STATES, "lengths": LENGTHS}, [value.name for value in model.graph.outputs]
    plain = compute(model, tmp_path / "plain.onnx", feeds)
    counts = suited(model)
    assert [value.name for value in model.graph.outputs] == names
    assert counts["SkipLayerNormalization"] == 1
    assert "LayerNormalization" not in counts
    (attention,) = (node for node in model.graph if node.op_type == "MultiHeadAttention")
    assert (attention.inputs[3] is None) is not read_twice
    assert counts.get("Add", 0) == (0 if read_twice else 1)  # the query's bias
    for found, wanted in zip(compute(model, tmp_path / "suited.onnx", feeds), plain, strict=True):
        for row, length in enumerate(LENGTHS):
            np.testing.assert_allclose(found[row, :length], wanted[row, :length], atol=0.03)


LEFT = ("read", "given", "sum given", "twice", "causal", "zero", "no shift", "axis")  # reasons to leave a bias


def make_normed_layer(shift: float = 1, scale: float | None = None, left: str = "") -> ir.Model:
    """Attention of what a norm puts out, whose shift is one number and one of whose scales may be given, and the sum of
    both; or what is near that."""
    kind = ir.DataType.FLOAT
    states = ir.Value(name="states", type=ir.TensorType(kind), shape=ir.Shape(["batch", "tokens", HIDDEN]))
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["batch"]))
    layer = Layer(kind, states, lengths)
    scales = RANDOM.normal(0, 0.5, HIDDEN).astype("f4")
    scales[0] = scales[0] if scale is None else scale
    shifts = np.full(HIDDEN, shift, "f4")
    norm = [add_constant(layer.graph, name, array) for name, array in (("scale", scales), ("shift", shifts))]
    axis = {"axis": 1 if left == "axis" else -1, "epsilon": 1e-5}
    normed = layer.add("LayerNormalization", states, *norm[: 1 if left == "no shift" else 2], **axis)
    weights, bias = layer.weights("qkv", HIDDEN, 3 * HIDDEN), layer.weights("qkv_bias", 3 * HIDDEN)
    heads = {"num_heads": HEADS} | ({"unidirectional": 1} if left == "causal" else {})
    attended = layer.add("Attention", normed, weights, bias, lengths, domain="com.microsoft", **heads)
    product = layer.add("MatMul", attended, layer.weights("out", HIDDEN, HIDDEN))
    projected = layer.add("Add", product, layer.weights("out_bias", HIDDEN))
    total = layer.add("Add", normed, normed if left == "twice" else projected)
    activated = layer.add("Tanh", normed if left == "read" else total)
    more = {"given": normed, "sum given": projected, "twice": attended}
    return layer.give(total=total, more=more.get(left, activated))


def attention_of(model: ir.Model) -> ir.Node:
    (attention,) = (node for node in model.graph if "Attention" in node.op_type)
    return attention


@pytest.mark.parametrize("scale", [None, 1e-30])
@pytest.mark.parametrize("shift", [0, 1, -0.1])
def test_the_bias_of_a_query_is_in_its_weights(shift: float, scale: float | None, tmp_path: Path) -> None:
    model, feeds = make_normed_layer(shift, scale), {"states": STATES.astype("f4"), "lengths": LENGTHS}
    plain, _ = compute(model, tmp_path / "plain.onnx", feeds)
    assert numbers(attention_of(model).inputs[2]).all()
    fold_query_biases(model.graph)
    assert not numbers(attention_of(model).inputs[2])[:HIDDEN].any()
    found, _ = compute(model, tmp_path / "folded.onnx", feeds)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row, :length], plain[row, :length], atol=2e-5)


def test_in_half_precision_a_query_is_added_nothing(tmp_path: Path) -> None:
    model, feeds = make_normed_layer(), {"states": STATES.astype("f4"), "lengths": LENGTHS}
    plain, _ = compute(model, tmp_path / "fused.onnx", feeds)
    batch = {name: torch.from_numpy(array) for name, array in feeds.items()}
    write_fp16(tmp_path / "fused.onnx", tmp_path / "half.onnx", {"batch": batch})
    half = ir.load(tmp_path / "half.onnx")
    assert attention_of(half).op_type == "MultiHeadAttention"
    assert attention_of(half).inputs[3] is None
    assert count_operators(half)["Add"] == 2  # those behind attention
    found, _ = compute(half, tmp_path / "again.onnx", feeds)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row, :length], plain[row, :length], atol=0.02)


@pytest.mark.parametrize("left", LEFT)
def test_the_bias_of_a_query_is_left_where_more_would_change(left: str) -> None:
    """Where states are read otherwise or given out, where a sum is, where a scale is zero or no shift is there."""
    model = make_normed_layer(scale=0 if left == "zero" else None, left=left)
    before = [node.inputs for node in model.graph]
    fold_query_biases(model.graph)
    assert [node.inputs for node in model.graph] == before


def test_what_is_in_float32_stays_as_it_is() -> None:
    model = make_layer(ir.DataType.FLOAT)
    before = count_operators(model)
    assert suit_gpus(model) == {}
    assert count_operators(model) == before


@pytest.mark.parametrize(
    ("attributes", "products"),
    [({"strides": (2, 3)}, 1), ({"strides": (2, 2)}, 0), ({"strides": (2, 3), "pads": (0, 0, 0, 3)}, 0)],
)
def test_patches_side_by_side_become_a_product(
    attributes: dict[str, tuple[int, ...]], products: int, tmp_path: Path
) -> None:
    kind = ir.DataType.FLOAT16
    pixels = ir.Value(name="pixels", type=ir.TensorType(kind), shape=ir.Shape(["batch", 3, 8, 12]))
    layer = Layer(kind, pixels)
    weights, bias = layer.weights("patches", HIDDEN, 3, 2, 3), layer.weights("bias", HIDDEN)
    found = layer.add("Conv", pixels, weights, bias, kernel_shape=(2, 3), group=1, **attributes)
    flat = layer.add("Reshape", found, add_constant(layer.graph, "flat", np.array([0, HIDDEN, -1])))
    model = layer.give(tokens=layer.add("Transpose", flat, perm=(0, 2, 1)))
    feeds = {"pixels": RANDOM.normal(0, 1, (2, 3, 8, 12)).astype("f2")}
    (plain,) = compute(model, tmp_path / "plain.onnx", feeds)
    counts = suited(model)
    assert counts.get("MatMul", 0) == products
    (patches,) = compute(model, tmp_path / "suited.onnx", feeds)
    np.testing.assert_allclose(patches, plain, atol=0.02)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("reader", ["places", "types"])
def test_embeddings_are_one_operator_where_places_count_up(step: int, reader: str, tmp_path: Path) -> None:
    """Every second place, or a second table for types, is another sum."""
    kind, whole = ir.DataType.FLOAT16, ir.TensorType(ir.DataType.INT64)
    ids, types = (
        ir.Value(name=name, type=whole, shape=ir.Shape(["batch", "tokens"])) for name in ("input_ids", "token_type_ids")
    )
    layer = Layer(kind, ids, types)
    constant = {name: add_constant(layer.graph, name, np.array([number])) for name, number in CONSTANTS.items()}
    places = add_constant(layer.graph, "all", np.arange(16)[None])
    tokens = layer.count("Shape", ids, start=1, end=2)
    stop = tokens if step == 1 else layer.count("Mul", tokens, constant["two"])
    given = [places, constant["zero"], stop, constant["one"], constant["one" if step == 1 else "two"]]
    indices = {"places": layer.count("Slice", *given), "types": types}[reader]
    gathered = [layer.add("Gather", layer.weights(name, 16, HIDDEN), index) for name, index in (
        ("words", ids), ("kinds", types), ("positions", indices)
    )]  # fmt: skip
    total = layer.add("Add", layer.add("Add", gathered[0], gathered[1]), gathered[2])
    norm = [layer.weights(name, HIDDEN) for name in ("scale", "shift")]
    model = layer.give(states=layer.add("LayerNormalization", total, *norm, axis=-1, epsilon=1e-5))
    feeds = {"input_ids": RANDOM.integers(0, 16, (2, 6)), "token_type_ids": RANDOM.integers(0, 2, (2, 6))}
    (plain,) = compute(model, tmp_path / "plain.onnx", feeds)
    counts = suited(model)
    assert counts.get("EmbedLayerNormalization", 0) == (step == 1 and reader == "places")
    np.testing.assert_allclose(compute(model, tmp_path / "suited.onnx", feeds)[0], plain, atol=0.02)
