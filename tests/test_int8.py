"""8-bit products: near their exact ones, static where that is nearly as exact as blocks, for real tokens alone."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tfbatch.errors import ExportNotVerified
from tfbatch_export.calibration import Seen, Tally
from tfbatch_export.families import Tensors
from tfbatch_export.int8 import write_int8
from tfbatch_export.rounding import product_in_blocks, round_static, round_weights

K, N, TOKENS = 64, 48, 4000
Array = np.ndarray


def random_states(*, outliers: int = 0, seed: int = 0) -> Array:
    """Tokens (TOKENS, K) that few directions explain, off zero; with so many channels that are a hundred times as large
    in every fiftieth token."""
    random = np.random.default_rng(seed)
    states = random.standard_normal((TOKENS, 8)) @ np.random.default_rng(9).standard_normal((8, K))
    states += 0.3 * random.standard_normal((TOKENS, K)) + np.arange(K) % 5
    states[::50, :outliers] *= 100
    return states.astype(np.float32)


def random_weights(columns: int = N) -> Array:
    return np.random.default_rng(1).standard_normal((K, columns)).astype(np.float32)


def see(states: Array) -> Seen:
    tally = Tally()
    for part in np.split(states, 10):
        tally.add(part)
    return tally.seen()


def error(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact - exact.mean(0)))


def test_what_is_seen_is_of_the_tokens_that_are_not_held_out() -> None:
    states = random_states()
    seen = see(states)
    kept = np.arange(400) % 8 != 7
    counted = np.concatenate([part[kept] for part in np.split(states, 10)])
    assert len(seen.held_out) == 500
    assert np.array_equal(seen.low, counted.min(0))
    assert np.array_equal(seen.high, counted.max(0))
    assert np.abs(seen.mean - counted.mean(0)).max() < 1e-4
    assert np.abs(seen.covariance - np.cov(counted, rowvar=False, bias=True)).max() < 1e-2


def test_a_static_product_is_near_the_exact_one_and_right_on_the_average() -> None:
    seen, weights, states = see(random_states()), random_weights(), random_states(seed=5)
    static, exact = round_static(weights, seen), states @ weights
    assert static.weights.dtype == np.int8
    assert error(static.product(states), exact) < 0.015
    spread = exact.std(0)
    assert np.abs((static.product(states) - exact).mean(0) / spread).max() < 0.002


def test_rounding_makes_up_for_itself_where_channels_are_alike() -> None:
    states, weights = random_states(), random_weights()
    scales = np.abs(weights).max(0) / 7  # few levels show it
    covariance = np.cov(states, rowvar=False, bias=True)
    centred = states - states.mean(0)
    made_up, nearest = round_weights(weights, scales, covariance), np.rint(weights / scales)
    exact = centred @ weights
    assert error(centred @ (made_up * scales), exact) < 0.5 * error(centred @ (nearest * scales), exact)


def test_a_channel_that_never_changes_is_part_of_what_is_added() -> None:
    states, weights = random_states(), random_weights()
    states[:, 3], states[:, 4] = 1000, 0
    static = round_static(weights, see(states))
    assert error(static.product(states), states @ weights) < 0.01


def test_channels_that_are_large_in_few_tokens_cost_precision_unless_they_are_apart() -> None:
    seen, weights, states = see(random_states(outliers=4)), random_weights(), random_states(outliers=4, seed=5)
    exact, ordinary = states @ weights, np.arange(TOKENS) % 50 != 0
    together, apart = (round_static(weights, seen, count).product(states) for count in (0, 4))
    assert round_static(weights, seen, 4).outliers.tolist() == [0, 1, 2, 3]
    assert error(apart[ordinary], exact[ordinary]) < 0.2 * error(together[ordinary], exact[ordinary])


def test_of_static_products_side_by_side_each_is_its_columns() -> None:
    static, states = round_static(random_weights(), see(random_states()), 3), random_states(seed=5)
    parts = [part.product(states) for part in static.parts([30, 18])]
    assert [part.shape[1] for part in parts] == [30, 18]
    assert np.abs(np.hstack(parts) - static.product(states)).max() < 1e-3


def make_graph(path: Path, *, shared: bool = False) -> None:
    """Two products of the same states (B, L, K), one of them with a bias, put together; with one matrix if shared."""
    states = ir.Value(name="states", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["B", "L", K]))
    mask = ir.Value(name="attention_mask", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["B", "L"]))
    matrices = {"first": random_weights(), "second": random_weights()[::-1].copy(), "bias": random_weights()[0]}
    constants = {
        name: ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape),
                       type=ir.TensorType(ir.DataType.FLOAT))
        for name, array in matrices.items()
    }  # fmt: skip
    first = ir.node("MatMul", [states, constants["first"]])
    second = ir.node("MatMul", [states, constants["first" if shared else "second"]])
    biased = ir.node("Add", [second.outputs[0], constants["bias"]])
    together = ir.node("Concat", [first.outputs[0], biased.outputs[0]], {"axis": -1})
    made = together.outputs[0]
    made.name, made.type, made.shape = "made", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", "L", 2 * N])
    graph = ir.Graph(
        [states, mask], [made], nodes=[first, second, biased, together], initializers=list(constants.values()),
        opset_imports={"": 18, "com.microsoft": 1},
    )  # fmt: skip
    ir.save(ir.Model(graph, ir_version=10), path)


def batches(states: Array, *, padding: float = 0) -> dict[str, Tensors]:
    """Rows of 20 tokens, the last five of every other one padding."""
    rows = states.reshape(-1, 20, K).copy()
    mask = np.ones(rows.shape[:2], np.int64)
    mask[::2, 15:] = 0
    rows[mask == 0] = padding
    parts = zip(np.array_split(rows, 4), np.array_split(mask, 4), strict=True)
    return {
        str(index): {"states": torch.from_numpy(part), "attention_mask": torch.from_numpy(held)}
        for index, (part, held) in enumerate(parts)
    }


def compute(path: Path, states: Array) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    mask = np.ones((len(states) // 20, 20), np.int64)
    feeds = {"states": states.reshape(-1, 20, K), "attention_mask": mask}
    given = {node.name for node in session.get_inputs()}
    made: Array = session.run(None, {name: feed for name, feed in feeds.items() if name in given})[0]
    return made.reshape(-1, 2 * N)


@pytest.mark.parametrize(("outliers", "gathered"), [(0, 0), (6, 1)])
def test_products_of_the_same_states_read_the_same_levels(outliers: int, gathered: int, tmp_path: Path) -> None:
    fused, made = tmp_path / "fused.onnx", tmp_path / "int8.onnx"
    make_graph(fused)
    states = random_states(outliers=outliers)
    assert write_int8(fused, made, batches(states)) == {"MatMulNBits": 0, "QuantizeLinear": 1}
    operators = [node.op_type for node in ir.load(made).graph]
    assert (operators.count("MatMul"), operators.count("Gather")) == (2 + 2 * gathered, gathered)
    unseen = random_states(outliers=outliers, seed=5)
    exact = compute(fused, unseen)
    ordinary = np.arange(TOKENS) % 50 != 0
    assert error(compute(made, unseen)[ordinary], exact[ordinary]) < 0.015
    assert np.array_equal(compute(made, unseen)[:20], compute(made, unseen[:20]))  # whatever else is in the batch


def test_padding_has_no_part_in_the_steps(tmp_path: Path) -> None:
    make_graph(tmp_path / "fused.onnx")
    for name, padding in (("zeros", 0.0), ("large", 1e6)):
        write_int8(tmp_path / "fused.onnx", tmp_path / f"{name}.onnx", batches(random_states(), padding=padding))
    assert (tmp_path / "zeros.onnx").read_bytes() == (tmp_path / "large.onnx").read_bytes()


def test_in_blocks_is_what_no_rows_tell_of_or_whose_weights_are_shared_or_what_a_few_tokens_are_unlike(
    tmp_path: Path,
) -> None:
    fused, made = tmp_path / "fused.onnx", tmp_path / "int8.onnx"
    make_graph(fused)
    in_blocks = {"MatMulNBits": 2, "QuantizeLinear": 0}
    assert write_int8(fused, made, {}) == in_blocks
    one_row = {"0": {name: values[:1, :2] for name, values in batches(random_states())["0"].items()}}
    assert write_int8(fused, made, one_row) == in_blocks  # of so few tokens none is held out
    unlike = random_states()
    unlike[::50] *= 100  # all of their channels
    assert write_int8(fused, made, batches(unlike)) == in_blocks
    assert error(compute(made, unlike), compute(fused, unlike)) < 0.01
    make_graph(fused, shared=True)
    assert write_int8(fused, made, batches(random_states())) == in_blocks


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    make_graph(tmp_path / "fused.onnx")
    model = ir.load(tmp_path / "fused.onnx")
    for node in model.graph:
        if node.op_type == "MatMul":
            node.replace_input_with(1, model.graph.inputs[0])
    ir.save(model, tmp_path / "none.onnx")
    with pytest.raises(ExportNotVerified, match="no product"):
        write_int8(tmp_path / "none.onnx", tmp_path / "int8.onnx", {})


def test_blocks_are_as_the_operator_rounds_them(tmp_path: Path) -> None:
    make_graph(tmp_path / "fused.onnx")
    write_int8(tmp_path / "fused.onnx", tmp_path / "int8.onnx", {})
    states = random_states()
    expected = product_in_blocks(states, random_weights())
    exact = states @ random_weights()
    found = compute(tmp_path / "int8.onnx", states)[:, :N]
    assert error(found, exact) == pytest.approx(error(expected, exact), rel=0.1)
