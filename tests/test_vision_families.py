"""Each family that looks at pictures is fused as it declares and gives what the Hub's pipeline gives."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import allow_ties, export_once, read_output, run_tfbatch
from PIL import Image
from real_rows import compare, real_pictures
from tfbatch.bundle import load_bundle
from tfbatch_export.families import family_names, load_family, tasks_of
from vision import KINDS, PAIRS, hub_pipeline, make_checkpoint, pool, states_of

Exported = Callable[..., tuple[Path, Path]]
FEW = real_pictures()[:24]  # two of each form
BIAS = 5  # the input of com.microsoft Attention and MultiHeadAttention that is added to the scores
ORDINARY = {("beit", "image-classification")}
LEADING = {"deit": 2, "dinov2_with_registers": 5, "dinov3_vit": 5, "swin": 0}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("beit", {"use_relative_position_bias": False}),
    ("beit", {"use_relative_position_bias": False, "use_shared_relative_position_bias": True,
              "use_absolute_position_embeddings": True, "use_mean_pooling": False}),
    ("dinov2", {"use_swiglu_ffn": True}),
    ("dinov2_with_registers", {"use_swiglu_ffn": True, "num_register_tokens": 1}),
    ("dinov3_vit", {"use_gated_mlp": True, "hidden_act": "silu", "key_bias": True}),
    ("swin", {"depths": [1, 3, 2], "num_heads": [2, 2, 4]}),
    ("vit", {"hidden_act": "relu"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The checkpoint and the bundle of a family and task, made once each."""
    root = tmp_path_factory.mktemp("vision")

    samples = root / "samples.parquet"
    pq.write_table(pa.table({"image": real_pictures()[:200]}), samples)

    @cache
    def make(name: str, task: str) -> tuple[Path, Path]:
        checkpoint = make_checkpoint(name, task, root / f"{name}-{task}")
        with pytest.MonkeyPatch.context() as patch:
            allow_ties(patch)
            return checkpoint, export_once(checkpoint, fp16=True, int8=True, samples=samples)

    return make


def run(bundle: Path, pictures: list[bytes], folder: Path) -> list[dict[str, Any]]:
    """The output rows for a column of pictures."""
    pq.write_table(pa.table({"image": pictures}), folder / "in.parquet")
    words = ["-m", bundle, "-o", folder / "out", "--exact-decoding", "--keep-columns", "none"]
    done = run_tfbatch("run", folder / "in.parquet", *words)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = read_output(folder / "out").to_pylist()
    return rows


def check_run(name: str, task: str, checkpoint: Path, bundle: Path, pictures: list[bytes], folder: Path) -> None:
    """Hold the output to the Hub's pipeline, row for row."""
    found = run(bundle, pictures, folder)
    if task == "image-classification":
        classify = hub_pipeline(task, checkpoint)
        expected = [classify(Image.open(io.BytesIO(picture)), top_k=1)[0] for picture in pictures]
        assert len({round(answer["score"], 2) for answer in expected}) > 3  # pictures are told apart
        compare(found, expected, tolerance=1e-4)
        return
    mode = str(load_bundle(bundle).manifest.settings["pooling"])
    for row, wanted in zip(found, embed(name, checkpoint, pictures, mode), strict=True):
        assert row["error"] is None
        assert row["embedding"] == pytest.approx(wanted, abs=1e-4)


def embed(name: str, checkpoint: Path, pictures: list[bytes], mode: str) -> list[list[float]]:
    """Each picture's embedding: by the pipeline's own pooling where that is not just a mean, as BEiT's is."""
    config = load_bundle_config(checkpoint)
    if name == "beit" and mode == "mean" and config["use_mean_pooling"]:
        extract = hub_pipeline("image-feature-extraction", checkpoint)
        return [extract(Image.open(io.BytesIO(picture)), pool=True)[0] for picture in pictures]
    leading = 1 + config["num_register_tokens"] if "num_register_tokens" in config else LEADING.get(name, 1)
    states = states_of(name, checkpoint, pictures)
    return [pool(name, tokens, mode, leading).tolist() for tokens in states]


def load_bundle_config(checkpoint: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    content: dict[str, Any] = AutoConfig.from_pretrained(checkpoint).to_dict()
    return content


@pytest.mark.parametrize(
    ("name", "task"),
    [pytest.param(*pair, marks=() if pair in ORDINARY else pytest.mark.families) for pair in PAIRS],
)
def test_each_pair_is_fused_as_declared_and_gives_what_the_hubs_pipeline_gives(
    name: str, task: str, exported: Exported, tmp_path: Path
) -> None:
    checkpoint, bundle = exported(name, task)
    manifest = load_bundle(bundle).manifest
    assert (manifest.family, manifest.task) == (name, task)
    graph = manifest.graphs["fp32"]
    attentions = graph.fused.get("Attention", 0), graph.fused.get("MultiHeadAttention", 0)
    assert sum(attentions) == graph.layers == KINDS[name].layers
    assert max(attentions) == graph.fused[KINDS[name].attention]
    assert graph.fused["BiasGelu"] == graph.layers
    for precision in ("fp16", "int8"):
        assert manifest.graphs[precision].proofs[f"cpu {precision} f32"] is True
    assert max(record["max_abs_difference"] for record in graph.parity if record["precision"] == "fp32") < 1e-4
    check_run(name, task, checkpoint, bundle, FEW, tmp_path)


def test_every_family_of_pictures_is_among_them() -> None:
    """But for those that only make pictures, and those of two towers, which are held to it with their texts."""
    tasks = {"image-classification", "image-feature-extraction"}
    found = {(name, task) for name in family_names() for task in tasks_of(name) if task in tasks}
    assert found - {(name, "image-feature-extraction") for name in ("clip", "siglip")} == set(PAIRS)


@pytest.mark.parametrize("name", ["beit", "swin"])
@pytest.mark.families
def test_the_bias_of_places_enters_the_fused_attention_of_every_layer(name: str, exported: Exported) -> None:
    graph = onnx_ir.load(exported(name, "image-classification")[1] / "model.onnx").graph
    nodes = [node for node in graph if node.op_type == KINDS[name].attention]
    assert len(nodes) == KINDS[name].layers
    assert all(len(node.inputs) > BIAS and node.inputs[BIAS] is not None for node in nodes)


@pytest.mark.families
def test_positions_for_another_size_of_picture_are_made_at_export(exported: Exported) -> None:
    checkpoint, bundle = exported("dinov2", "image-classification")
    graph = onnx_ir.load(bundle / "model.onnx").graph
    assert not [node for node in graph if node.op_type == "Resize"]
    assert list(graph.inputs[0].shape or ())[1:] == [3, 42, 42]
    assert load_bundle_config(checkpoint)["image_size"] == 56
    assert load_bundle(bundle).manifest.settings["tokens_per_image"] == 10


def test_gated_feed_forward_halves_are_declared_as_not_fused() -> None:
    from transformers import Dinov2Config, DINOv3ViTConfig

    task = "image-feature-extraction"
    assert load_family("dinov2", task).expected(Dinov2Config(use_swiglu_ffn=True))["BiasGelu"] == 0
    gated = DINOv3ViTConfig(use_gated_mlp=True, hidden_act="silu")
    assert load_family("dinov3_vit", task).expected(gated)["BiasGelu"] == 0


@pytest.mark.families
@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_two_hundred_pictures_get_what_the_hubs_pipeline_gives(
    name: str, task: str, exported: Exported, tmp_path: Path
) -> None:
    checkpoint, bundle = exported(name, task)
    check_run(name, task, checkpoint, bundle, real_pictures()[:200], tmp_path)


@pytest.mark.families
@pytest.mark.parametrize("task", ["image-classification", "image-feature-extraction"])
@pytest.mark.parametrize(("name", "more"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_variants_of_a_family_are_exported_too(name: str, more: dict[str, Any], task: str, tmp_path: Path) -> None:
    if (name, task) not in PAIRS:
        pytest.skip("transformers has no such class")
    checkpoint = make_checkpoint(name, task, tmp_path / name, **more)
    check_run(name, task, checkpoint, export_once(checkpoint), FEW, tmp_path)
