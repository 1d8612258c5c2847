"""What the last layer makes for tokens that no head reads is left out, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers
from text_checkpoints import LABELS, LABELS_OF, TOKENIZERS, make_config
from tfbatch.runtimes.device import find_device, open_session
from tfbatch_export.checkpoint import auto_class
from tfbatch_export.families import Family, Pooled, load_family
from tfbatch_export.graphs import build_graph, build_whole_graph
from tfbatch_export.precision import write_fp32
from tfbatch_export.rewrites.leading import keep_leading_tokens
from tfbatch_export.rewrites.operators import check_fusion, count_operators
from tfbatch_export.rewrites.values import add_constant
from vision import HEADS, KINDS

FIRST_ALONE = dict.fromkeys(TOKENIZERS, "text-classification") | {
    "deit": "image-classification",
    "vit": "image-classification",
    "dinov2": "image-feature-extraction",
    "dinov2_with_registers": "image-feature-extraction",
    "dinov3_vit": "image-feature-extraction",
}
ORDINARY = {"bert", "vit"}
EVERY_TOKEN = [
    ("bert", "token-classification"),
    ("bert", "question-answering"),
    ("bert", "feature-extraction"),
    ("dinov2", "image-classification"),  # which reads the mean of all beside the first
    ("beit", "image-classification"),
]


def make_model(name: str, task: str) -> tuple[Family, Any]:
    """A family and a model of three layers of random weights."""
    torch.manual_seed(1)
    family = load_family(name, task)
    if isinstance(family, Pooled):
        family = family.pooled("cls", is_normalised=False)
    if name in TOKENIZERS:
        model = auto_class(task, family).from_config(make_config(name, TOKENIZERS[name](), LABELS_OF.get(task, LABELS)))
    else:
        kind = KINDS[name]
        config = getattr(transformers, f"{kind.classes}Config")(**kind.config)
        model = getattr(transformers, kind.classes + HEADS[task])(config)
    return family, model.eval()


def tokens_of_products(graph: ir.Graph) -> list[object]:
    """How many tokens each product with weights behind the last attention is for."""
    nodes = list(graph)
    last = max(index for index, node in enumerate(nodes) if "Attention" in node.op_type)
    products = [node for node in nodes[last:] if node.op_type == "MatMul" and node.inputs[1].is_initializer()]
    return [node.inputs[0].shape[1] for node in products if node.inputs[0].shape.rank() == 3]


@pytest.mark.parametrize(
    ("name", "task"),
    [pytest.param(*pair, marks=() if pair[0] in ORDINARY else pytest.mark.families) for pair in FIRST_ALONE.items()],
)
def test_a_head_that_reads_the_first_token_gets_the_same_numbers_of_a_shorter_last_layer(
    name: str, task: str, tmp_path: Path
) -> None:
    family, model = make_model(name, task)
    graph, expected = build_graph(family, model)
    whole = build_whole_graph(family, model)
    assert tokens_of_products(graph.graph) == [2, 2, 2]  # behind attention, and the two of the feed-forward half
    assert not {2, 1} & {*tokens_of_products(whole.graph)}
    check_fusion(count_operators(graph), expected)
    sessions = []
    for file, made in (("short.onnx", graph), ("whole.onnx", whole)):
        ir.save(made, tmp_path / "fused.onnx")
        write_fp32(tmp_path / "fused.onnx", tmp_path / file)
        sessions.append(open_session(tmp_path / file, find_device("cpu")))
    for batch in family.parity_batches(model.config).values():
        feeds = {key: tensor.numpy() for key, tensor in batch.items()}
        short, full = (np.asarray(session.run(feeds)) for session in sessions)
        np.testing.assert_allclose(short, full, rtol=0, atol=1e-5 * max(1, np.abs(full).max()))


@pytest.mark.parametrize(("name", "task"), EVERY_TOKEN)
def test_a_head_that_reads_every_token_keeps_its_last_layer(name: str, task: str) -> None:
    family, model = make_model(name, task)
    graph, expected = build_graph(family, model)
    assert expected == family.expected(model.config)
    assert tokens_of_products(graph.graph)
    assert 2 not in tokens_of_products(graph.graph)


def test_a_rows_bits_do_not_depend_on_how_many_and_how_long_the_others_of_its_batch_are(tmp_path: Path) -> None:
    family, model = make_model("bert", "text-classification")
    ir.save(build_graph(family, model)[0], tmp_path / "fused.onnx")
    write_fp32(tmp_path / "fused.onnx", tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", find_device("cpu"))
    random = np.random.default_rng(0)
    for length in range(3, 24):
        ids = random.integers(1, model.config.vocab_size, length)

        def padded(rows: int, width: int, ids: Any = ids) -> dict[str, Any]:
            mask = np.tile(np.arange(width) < len(ids), (rows, 1)).astype(np.int64)
            return {"input_ids": mask * np.resize(ids, width), "attention_mask": mask, "token_type_ids": 0 * mask}

        alone = np.asarray(session.run(padded(1, length)))[0]
        for rows, width in ((1, length + 1), (2, length), (3, length + 3)):
            assert (np.asarray(session.run(padded(rows, width)))[0] == alone).all()


class Made:
    """A graph of states (batch, 5, 4) float32 that a product with weights is taken of."""

    def __init__(self) -> None:
        self.states = ir.Value(name="states", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 5, 4]))
        self.graph = ir.Graph([self.states], [], nodes=[], name="made", opset_imports={"": 18})
        weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
        self.product = self.add("MatMul", self.states, add_constant(self.graph, "weights", weights), width=3)

    def add(self, operator: str, *inputs: ir.Value, width: int | None = None, **attributes: int) -> ir.Value:
        """A node; its output holds states of some width, or whatever where none is told."""
        node = ir.node(operator, inputs, attributes)
        self.graph.append(node)
        made = node.outputs[0]
        made.type = ir.TensorType(ir.DataType.FLOAT)
        made.shape = None if width is None else ir.Shape(["batch", 5, width])
        return made

    def read(self, value: ir.Value, place: int) -> None:
        """Put out the state of one token."""
        at = add_constant(self.graph, f"place_{len(self.graph)}", np.array(place))
        self.put_out(self.add("Gather", value, at, axis=1))

    def put_out(self, value: ir.Value) -> None:
        value.name = f"output_{len(self.graph.outputs)}"
        value.shape = value.shape or ir.Shape(["batch", 3])
        self.graph.outputs.append(value)

    def outputs(self, path: Path) -> list[Any]:
        """What onnxruntime makes of it."""
        from onnxruntime import InferenceSession

        model = ir.Model(self.graph, ir_version=10)
        ir.save(model, path)
        session = InferenceSession(path, providers=["CPUExecutionProvider"])
        states = np.random.default_rng(1).standard_normal((2, 5, 4)).astype(np.float32)
        found: list[Any] = session.run(None, {"states": states})
        return found

    def shorten(self) -> int | None:
        """Of how many tokens the product is taken then; None where it is as it was."""
        keep_leading_tokens(ir.Model(self.graph, ir_version=10))
        product = next(node for node in self.graph if node.op_type == "MatMul")
        shape = product.outputs[0].shape
        assert shape is not None
        return None if shape[1] == 5 else int(shape[1])


def test_where_two_places_are_read_the_tokens_up_to_the_later_are_kept(tmp_path: Path) -> None:
    made = Made()
    made.read(made.product, 2)
    made.read(made.add("Tanh", made.product, width=3), 0)
    before = made.outputs(tmp_path / "before.onnx")
    assert made.shorten() == 3
    for found, expected in zip(made.outputs(tmp_path / "after.onnx"), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_place_counted_from_the_end_leaves_everything_as_it_was() -> None:
    made = Made()
    made.read(made.product, -1)
    assert made.shorten() is None


def test_states_that_are_read_whole_too_are_kept_whole() -> None:
    made = Made()
    made.read(made.product, 0)
    made.put_out(made.add("ReduceSum", made.product, width=3))
    assert made.shorten() is None


def test_states_that_are_put_out_are_kept_whole() -> None:
    made = Made()
    made.read(made.product, 0)
    made.put_out(made.product)
    assert made.shorten() is None


def test_what_goes_across_tokens_is_not_shortened() -> None:
    """A normalisation over tokens and states, and a sum with what has an axis of tokens in another place."""
    for operator, other, attributes in (
        ("LayerNormalization", np.ones((5, 3), np.float32), {"axis": 1}),
        ("Add", np.ones((5, 3), np.float32), {}),
    ):
        made = Made()
        constant = add_constant(made.graph, "other", other)
        made.read(made.add(operator, made.product, constant, width=3, **attributes), 0)
        assert made.shorten() is None


def test_a_sum_with_states_of_every_place_takes_those_that_are_kept(tmp_path: Path) -> None:
    made = Made()
    places = np.random.default_rng(2).standard_normal((1, 5, 3)).astype(np.float32)
    made.read(made.add("Add", made.product, add_constant(made.graph, "places", places), width=3), 1)
    (before,) = made.outputs(tmp_path / "before.onnx")
    assert made.shorten() == 2
    (after,) = made.outputs(tmp_path / "after.onnx")
    np.testing.assert_allclose(after, before, rtol=1e-6)
