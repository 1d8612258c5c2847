"""Graphs in half precision: near to PyTorch for every family and task, float32 where float16 would not do."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_picture_model, read_output, run_tfbatch
from real_rows import real_pictures
from tfbatch.bundle import load_bundle
from tfbatch.commands.doctor import DEBUG
from tfbatch.errors import ExportNotVerified
from tfbatch.runtimes.device import arithmetic, choose_precision, find_device, is_proved, open_session
from tfbatch.runtimes.onnxruntime_session import cuda_problem
from tfbatch.session import Device
from tfbatch_export.config import ExportConfig
from tfbatch_export.distance import compare
from tfbatch_export.export import export
from tfbatch_export.parity import REAL, check_parity
from tfbatch_export.precision import write_fp16
from tfbatch_export.ranges import LIMIT, find_overflowing
from tfbatch_export.rewrites.operators import count_operators
from tfbatch_export.verify import verify

# The fixture that has a tiny checkpoint of a family for a task; `make_picture_model` makes those of PICTURES.
CHECKPOINTS = {
    ("bert", "text-classification"): "text_checkpoint",
    ("bert", "feature-extraction"): "text_checkpoint",
    ("vit", "image-classification"): "image_checkpoint",
    ("deit", "image-classification"): "deit_checkpoint",
}
PICTURES = {(name, "masked-im") for name in ("vit", "deit", "vit_mae", "swin")} | {("swin2sr", "image-to-image")}
ORDINARY = {("bert", "text-classification")}
FAMILIES = [  # others are held to it where they are held to the Hub's pipelines
    pytest.param(*pair, marks=() if pair in ORDINARY else pytest.mark.families)
    for pair in [*CHECKPOINTS, *sorted(PICTURES)]
]
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


@pytest.fixture(scope="module")
def deit_checkpoint(image_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeiT of 2 layers, 32 wide, with the ViT's way to prepare pictures."""
    from transformers import DeiTConfig, DeiTForImageClassification

    folder = tmp_path_factory.mktemp("checkpoints") / "deit"
    config = DeiTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    DeiTForImageClassification(config).save_pretrained(folder)
    shutil.copy(image_checkpoint / "preprocessor_config.json", folder)
    return folder


@pytest.fixture(scope="module")
def half_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Exports a family for a task with a graph in half precision, once."""
    root = tmp_path_factory.mktemp("half")

    @cache
    def make(name: str, task: str) -> Path:
        fixture = CHECKPOINTS.get((name, task))
        assert fixture or (name, task) in PICTURES, f"CHECKPOINTS names no tiny checkpoint of {name} for {task}"
        checkpoint = request.getfixturevalue(fixture) if fixture else make_picture_model(name, root / name)
        output = root / f"{name}-{task}-bundle"
        return export(ExportConfig(model=str(checkpoint), output=output, task=task, fp16=True)).path

    return make


def by_kind(counts: dict[str, int]) -> Counter[str]:
    """Counts of operators, those for attention in one, and those that normalise."""
    found = Counter[str]()
    for name, count in counts.items():
        found[next((kind for kind in ("Attention", "LayerNormalization") if name.endswith(kind)), name)] += count
    return found


@pytest.fixture(scope="module")
def half_text(half_bundle: Callable[[str, str], Path]) -> Path:
    return half_bundle("bert", "text-classification")


@pytest.mark.parametrize(("name", "task"), FAMILIES)
def test_a_family_and_task_passes_in_half_precision(
    name: str, task: str, half_bundle: Callable[[str, str], Path]
) -> None:
    path = half_bundle(name, task)
    graphs = load_bundle(path).manifest.graphs
    whole, half = graphs["fp32"], graphs["fp16"]
    assert half.proofs["cpu fp16 f32"] is True
    assert by_kind(half.fused) == by_kind(whole.fused)
    if name == "bert":
        assert half.fused["SkipLayerNormalization"] == 2 * half.layers
        assert half.fused["EmbedLayerNormalization"] == 1
    assert all(record["max_abs_difference"] is not None for record in half.parity)
    graph = ir.load(path / half.file).graph
    assert {value.dtype for value in (*graph.inputs, *graph.outputs)} & {FLOAT, HALF} == {FLOAT}
    weights = {whether: bytes_of_weights(path / file.file, whether) for whether, file in ((FLOAT, whole), (HALF, half))}
    assert 0.95 < 2 * weights[HALF] / weights[FLOAT] < 1.01, "equal biases, here zeros, are not one where they are cut"
    assert {node.name for node in graph} >= set(half.kept_in_fp32)
    for node in graph:
        if node.name in half.kept_in_fp32:
            assert HALF not in {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}


@pytest.mark.families
@pytest.mark.parametrize(("name", "task"), sorted(PICTURES))
def test_what_makes_pictures_passes_in_eight_bits(name: str, task: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": real_pictures()[:60]}), tmp_path / "samples.parquet")
    asked = ExportConfig(
        model=str(make_picture_model(name, tmp_path / "checkpoint")), output=tmp_path / "bundle", task=task, int8=True,
        samples=tmp_path / "samples.parquet",
    )  # fmt: skip
    assert export(asked).manifest.graphs["int8"].proofs["cpu int8 f32"] is True


def bytes_of_weights(path: Path, kind: ir.DataType) -> int:
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype == kind)


@pytest.mark.families
def test_what_is_ranked_is_ranked_in_float32(half_bundle: Callable[[str, str], Path]) -> None:
    """Else two of a thousand random numbers would soon be the same, and another patch be hidden."""
    graph = ir.load(half_bundle("vit_mae", "masked-im") / "model_fp16.onnx").graph
    noise = next(value for value in graph.inputs if value.name == "noise")
    assert {node.op_type for node in noise.consumers()} >= {"TopK"}


def test_half_precision_runs_on_a_processor_when_it_is_asked_for(half_text: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good film", "bad plot", None]}), tmp_path / "in.parquet")
    found = {}
    for precision in ("auto", "fp16"):
        words = ["-m", half_text, "-o", tmp_path / precision, "--device", "cpu", "--precision", precision]
        done = run_tfbatch("run", tmp_path / "in.parquet", *words)
        assert done.code == 0, done.err
        found[precision] = (done.result["precision"], done.result["proved"], read_output(tmp_path / precision))
    assert found["auto"][:2] == ("fp32", True)
    assert found["fp16"][:2] == ("fp16", True)
    whole, half = (found[precision][2] for precision in ("auto", "fp16"))
    assert whole["predicted_label"] == half["predicted_label"]
    assert whole["predicted_score"] != half["predicted_score"]


def test_each_device_says_what_it_computes_half_precision_in(half_text: Path) -> None:
    """Asked for f16 OpenVINO takes bf16 where there is no f16; so it is asked for f32."""
    graphs = load_bundle(half_text).manifest.graphs
    gpu = Device(runtime="cuda")
    assert (arithmetic(gpu, "fp16"), choose_precision(gpu, "auto", graphs)) == ("f16", "fp16")
    assert is_proved(gpu, "fp16", graphs) is None  # nothing was compared there
    for name in ("cpu", "openvino"):
        device = find_device(name)
        assert (arithmetic(device, "fp16"), choose_precision(device, "auto", graphs)) == ("f32", "fp32")
        assert is_proved(device, "fp16", graphs) is True


def test_verify_repeats_half_precision(half_text: Path) -> None:
    bundle, compared = verify(half_text, None)
    assert compared
    assert bundle.manifest.graphs["fp16"].proofs["cpu fp16 f32"] is True


def model_of(nodes: list[ir.Node], inputs: list[ir.Value], weights: dict[str, np.ndarray]) -> ir.Model:
    output = nodes[-1].outputs[0]
    output.name, output.dtype = "made", FLOAT
    graph = ir.Graph(inputs, [output], nodes=nodes, opset_imports={"": 18}, name="graph")
    for weight in {value for node in nodes for value in node.inputs if value is not None and value.name in weights}:
        weight.const_value = ir.tensor(weights[str(weight.name)], name=weight.name)
        graph.register_initializer(weight)
    return ir.Model(graph, ir_version=10)


def value(name: str, kind: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def typed(path: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path))


def test_a_node_whose_numbers_are_too_large_stays_in_float32(tmp_path: Path) -> None:
    """A residual stream that grows past 65,504 and is normalised again."""
    hidden, scale = value("hidden", FLOAT, "batch", 4), value("scale", FLOAT, 4)
    gain, shift = value("gain", FLOAT, 4), value("shift", FLOAT, 4)
    grown = ir.node("Mul", [hidden, scale], name="grow")
    normal = ir.node("LayerNormalization", [grown.outputs[0], gain, shift], name="normalise")
    plain = ir.node("Add", [normal.outputs[0], shift], name="add")
    weights = {"scale": np.full(4, 1e4, np.float32), "gain": np.ones(4, np.float32), "shift": np.zeros(4, np.float32)}
    ir.save(model_of([grown, normal, plain], [hidden], weights), tmp_path / "model.onnx")
    batch = {"b": {"hidden": torch.tensor([[1.0, -2.0, 30.0, 4.0], [0.5, 0.0, -40.0, 9.0]])}}
    assert find_overflowing(typed(tmp_path / "model.onnx"), batch) == {"grow", "normalise"}
    assert write_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx", batch) == ({}, ["grow", "normalise"])
    feeds = {name: tensor.numpy() for name, tensor in batch["b"].items()}
    whole, half = (open_session(tmp_path / file, find_device("cpu")).run(feeds) for file in ("model.onnx", "half.onnx"))
    np.testing.assert_allclose(half, whole, atol=2e-3)


def test_a_weight_that_is_too_large_is_found_without_running(tmp_path: Path) -> None:
    hidden, scale = value("hidden", FLOAT, "batch", 4), value("scale", FLOAT, 4)
    node = ir.node("Mul", [hidden, scale], name="scaled")
    ir.save(model_of([node], [hidden], {"scale": np.full(4, 2.0 * LIMIT, np.float32)}), tmp_path / "model.onnx")
    assert find_overflowing(typed(tmp_path / "model.onnx"), {}) == {"scaled"}


def test_the_angle_of_a_sine_is_made_in_float32_from_its_position_on(tmp_path: Path) -> None:
    """Position 3,001 is 3,000 or 3,002 in float16, and its sine any number."""
    positions, frequency = value("positions", ir.DataType.INT64, "batch", 2), value("frequency", FLOAT, 2)
    cast = ir.node("Cast", [positions], {"to": FLOAT}, name="cast")
    angle = ir.node("Mul", [cast.outputs[0], frequency], name="angle")
    sine = ir.node("Sin", [angle.outputs[0]], name="sine")
    twice = ir.node("Add", [sine.outputs[0], sine.outputs[0]], name="twice")
    weights = {"frequency": np.array([1.0, 0.37], np.float32)}
    ir.save(model_of([cast, angle, sine, twice], [positions], weights), tmp_path / "model.onnx")
    batch = {"b": {"positions": torch.tensor([[3001, 4093], [1, 2]])}}
    assert write_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx", batch) == ({}, ["cast", "angle", "sine"])
    made = open_session(tmp_path / "half.onnx", find_device("cpu")).run({"positions": batch["b"]["positions"].numpy()})
    np.testing.assert_allclose(made, 2 * np.sin(batch["b"]["positions"].numpy() * weights["frequency"]), atol=2e-3)
    assert count_operators(ir.load(tmp_path / "half.onnx"))["Sin"] == 1


@pytest.mark.parametrize("is_real", [True, False])
@pytest.mark.parametrize("figures", [{"cosine": 0.999}, {"label_agreement": 0.85}, {"max_abs_difference": None}])
def test_half_precision_is_held_to_real_and_made_up_rows(figures: dict[str, Any], is_real: bool) -> None:
    facts = {"device": "cpu", "precision": "fp16", "arithmetic": "f32", "batch": "b", "rows": 10, "is_real": is_real}
    near = {"max_abs_difference": 1e-3, "cosine": 1.0, "label_agreement": 1.0}
    assert check_parity([facts | near], "fp16") == {"cpu fp16 f32": True}
    with pytest.raises(ExportNotVerified, match="fp16"):
        check_parity([facts | near | figures], "fp16")


@pytest.mark.families
def test_half_precision_needs_no_real_rows_and_is_held_to_those_there_are(
    text_checkpoint: Path, reviews: Path, tmp_path: Path
) -> None:
    done = run_tfbatch("export", text_checkpoint, "-o", tmp_path / "bundle", "--fp16", "--samples", reviews)
    assert done.code == 0, done.err
    graph = load_bundle(tmp_path / "bundle").manifest.graphs["fp16"]
    assert {record["is_real"] for record in graph.parity} == {True, False}
    assert done.result["graphs"]["fp16"]["kept_in_fp32"] == graph.kept_in_fp32


@pytest.mark.gpu
def test_the_gpu_is_as_near_in_half_precision_as_the_gate_asks(half_text: Path) -> None:
    if problem := cuda_problem(0):
        pytest.skip(problem)
    ids = np.full((5, 20), 6, np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    half = open_session(half_text / "model_fp16.onnx", find_device("cuda"), "fp16").run(feeds)
    whole = open_session(half_text / "model.onnx", find_device("cpu")).run(feeds)
    figures = compare(half, whole, labels=True)
    assert figures["cosine"] >= REAL["fp16"].cosine
    assert figures["label_agreement"] == 1


@pytest.mark.gpu
def test_no_attention_on_a_gpu_is_left_to_plain_products(half_text: Path, reviews: Path, tmp_path: Path) -> None:
    """Of rows of one length and of many, which are masked."""
    if problem := cuda_problem(0):
        pytest.skip(problem)
    words = ["run", reviews, "-m", half_text, "--device", "cuda", "--batch-tokens", 256, "-o", tmp_path / "out"]
    done = run_tfbatch(*words, env={DEBUG: "1"})
    assert done.code == 0, done.err
    kernels = set(re.findall(r"SdpaKernel=(\w+)", done.out + done.err))
    assert kernels
    assert "MATH" not in kernels
