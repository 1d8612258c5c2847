"""8-bit products: near their exact ones, static where that is nearly as exact as blocks, for real tokens alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tfbatch.errors import ExportNotVerified
from tfbatch.runtimes.device import find_device
from tfbatch.runtimes.onnxruntime_session import open_graph
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from tfbatch_export.families import Tensors
from tfbatch_export.quantization.calibration import Seen, Tally
from tfbatch_export.quantization.int8 import write_int8
from tfbatch_export.quantization.rounding import BLOCK, Static, product_in_blocks, round_static, round_weights
from tfbatch_export.rewrites.values import numbers

K, N, TOKENS = 64, 48, 4000
WIDE = 192  # channels, more than a block
Array = np.ndarray


def random_states(*, outliers: int = 0, seed: int = 0, width: int = K) -> Array:
    """Tokens (TOKENS, width) that few directions explain, off zero; with so many channels that are a hundred times as
    large in every fiftieth token."""
    random = np.random.default_rng(seed)
    states = random.standard_normal((TOKENS, 8)) @ np.random.default_rng(9).standard_normal((8, width))
    states += 0.3 * random.standard_normal((TOKENS, width)) + np.arange(width) % 5
    states[::50, :outliers] *= 100
    return states.astype(np.float32)


def random_weights(width: int = K) -> Array:
    return np.random.default_rng(1).standard_normal((width, N)).astype(np.float32)


def see(states: Array) -> Seen:
    tally = Tally()
    for index, part in enumerate(np.split(states, 10)):
        (tally.hold_out if index == 9 else tally.add)(part)
    return tally.seen()


def error(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact - exact.mean(0)))


def test_what_is_seen_is_of_the_tokens_that_are_not_held_out() -> None:
    states = random_states()
    seen, counted = see(states), states[:3600]
    assert len(seen.held_out) == 128
    assert {row.tobytes() for row in seen.held_out} <= {row.tobytes() for row in states[3600:]}
    assert np.array_equal(seen.low, counted.min(0))
    assert np.array_equal(seen.high, counted.max(0))
    assert np.abs(seen.mean - counted.mean(0)).max() < 1e-4
    assert np.abs(seen.covariance - np.cov(counted, rowvar=False, bias=True)).max() < 1e-3


def test_channels_that_are_far_from_zero_and_vary_little_are_seen_to() -> None:
    states = random_states()
    far = states + np.array([0, 1e5] * (K // 2), np.float32)
    seen = see(far)
    expected = np.cov(far[:3600], rowvar=False, bias=True)
    assert np.abs(seen.covariance - expected).max() < 0.01 * np.abs(expected).max()
    weights = random_weights()
    exact = far.astype(np.float64) @ weights
    assert error(round_static(weights, seen).product(far), exact) < 0.05


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
    states[:, 3], states[:, 4] = 1234.567, 0
    static = round_static(weights, see(states))
    assert error(static.product(states), states @ weights) < 0.015
    states[:] = states[0]
    static = round_static(weights, see(states))
    assert np.abs(static.product(states) / (states @ weights) - 1).max() < 1e-3


def test_what_rectifiers_leave_at_zero_stays_zero() -> None:
    states, weights = np.maximum(random_states(), 0), random_weights()
    static = round_static(weights, see(states))
    assert np.array_equal(static.zeros, np.rint(static.zeros))
    nothing = np.zeros((1, K), np.float32)
    assert np.abs(static.product(nothing)).max() < 0.02 * np.abs(states @ weights).max()


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


def make_graph(path: Path, *, shared: bool = False, first: Array | None = None) -> None:
    """Two products of the same states (B, L, width), one with a bias, put together; of one matrix if shared."""
    first = random_weights() if first is None else first
    width = len(first)
    states = ir.Value(name="states", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["B", "L", width]))
    mask = ir.Value(name="attention_mask", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["B", "L"]))
    matrices = {
        "first": first,
        "second": random_weights(width)[::-1].copy(),
        "bias": random_weights()[0],
    }
    constants = {
        name: ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape),
                       type=ir.TensorType(ir.DataType.FLOAT))
        for name, array in matrices.items()
    }  # fmt: skip
    plain = ir.node("MatMul", [states, constants["first"]])
    second = ir.node("MatMul", [states, constants["first" if shared else "second"]])
    biased = ir.node("Add", [second.outputs[0], constants["bias"]])
    together = ir.node("Concat", [plain.outputs[0], biased.outputs[0]], {"axis": -1})
    made = together.outputs[0]
    made.name, made.type, made.shape = "made", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", "L", 2 * N])
    graph = ir.Graph(
        [states, mask], [made], nodes=[plain, second, biased, together], initializers=list(constants.values()),
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
    """By the session that jobs have, whose 8-bit sums overflow on no processor."""
    session = open_graph(path, find_device("cpu"))
    mask = np.ones((len(states) // 20, 20), np.int64)
    feeds = {"states": states.reshape(-1, 20, states.shape[-1]), "attention_mask": mask}
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
    one_batch = dict(list(batches(random_states()).items())[:1])
    assert write_int8(fused, made, one_batch) == in_blocks  # none is left to be held out
    every = batches(random_states())
    few = {name: {feed: values[:1] for feed, values in batch.items()} for name, batch in every.items()}
    assert write_int8(fused, made, few) == in_blocks  # so few tokens do not tell how large others are
    unlike = random_states()
    unlike[::50] *= 100  # all of their channels
    assert write_int8(fused, made, batches(unlike)) == in_blocks
    assert error(compute(made, unlike), compute(fused, unlike)) < 0.01
    make_graph(fused, shared=True)
    assert write_int8(fused, made, batches(random_states())) == in_blocks


def test_an_output_of_the_graph_keeps_its_name(tmp_path: Path) -> None:
    make_graph(tmp_path / "fused.onnx")
    model = ir.load(tmp_path / "fused.onnx")
    product = model.graph[0].outputs[0]
    product.name, product.type, product.shape = "product", model.graph.outputs[0].type, ir.Shape(["B", "L", N])
    model.graph.outputs.append(product)
    ir.save(model, tmp_path / "two.onnx")
    write_int8(tmp_path / "two.onnx", tmp_path / "int8.onnx", batches(random_states()))
    assert [output.name for output in ir.load(tmp_path / "int8.onnx").graph.outputs] == ["made", "product"]
    assert (
        error(compute(tmp_path / "int8.onnx", random_states()), compute(tmp_path / "two.onnx", random_states())) < 0.02
    )


def test_static_products_that_fail_the_gate_are_made_of_blocks(
    text_checkpoint: Path, reviews: Path, tmp_path: Path, many_ties: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def recorded(source: Path, target: Path, real: Mapping[str, Tensors]) -> dict[str, int]:
        tried.append(list(real))
        return write_int8(source, target, real)

    def wrong(products: Sequence[ir.Node], seen: Seen) -> Static:
        weights = np.concatenate([numbers(product.inputs[1]) for product in products], axis=1)
        return round_static(-weights, seen)

    monkeypatch.setattr("tfbatch_export.graphs.write_int8", recorded)
    monkeypatch.setattr("tfbatch_export.quantization.int8.near_enough", wrong)
    asked = ExportConfig(
        model=str(text_checkpoint), output=tmp_path / "bundle", samples=reviews, samples_column="text", int8=True
    )
    graph = export(asked).manifest.graphs["int8"]
    assert graph.fused["QuantizeLinear"] == 0 < graph.fused["MatMulNBits"]
    assert graph.proofs["cpu int8 f32"] is True
    first, second = tried
    assert [int(name.rpartition(" ")[2]) for name in first] == list(range(1, len(first) + 1))  # never in another order
    assert second == []


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
    sizes = np.where(np.arange(WIDE) < BLOCK, 1, 100).astype(np.float32)[:, None]  # of another scale in the next block
    states, weights = random_states(width=WIDE) * sizes.T, random_weights(WIDE) / sizes
    make_graph(tmp_path / "fused.onnx", first=weights)
    write_int8(tmp_path / "fused.onnx", tmp_path / "int8.onnx", {})
    exact, found = states @ weights, compute(tmp_path / "int8.onnx", states)[:, :N]
    assert error(found, exact) == pytest.approx(error(product_in_blocks(states, weights), exact), rel=0.1)
    assert error(found, exact) < 0.02
