"""Folders without a manifest, laid out as optimum and sentence-transformers lay theirs out. Their graphs are this
project's own, so that what comes out has something to be equal to; `test_interchange.py` has optimum make them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import change_json, lay_out
from conftest import export_once, read_output, run_tfbatch
from embedders import STEPS, TEXTS, make_embedder, say_how
from tfbatch.bundle import load_bundle
from tfbatch.bundles.signature import read_signature
from tfbatch.errors import BadConfiguration
from tfbatch.foreign import open_bundle
from tfbatch.runtimes.device import find_device, open_session

EDGE = {
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
}  # fmt: skip
MEAN = {"pooling_mode_mean_tokens": True}


def change_graph(file: Path, change: Callable[[onnx_ir.Model], None]) -> None:
    model = onnx_ir.load(file)
    change(model)
    onnx_ir.save(model, file)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a model that embeds, its mean as it comes."""
    return export_once(make_embedder(tmp_path_factory.mktemp("embedder") / "bert"))


def run(model: Path, table: pa.Table, folder: Path, *words: object) -> pa.Table:
    pq.write_table(table, folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", model, "-o", folder / f"{model.name}-out", *words)
    assert done.code == 0, done.err
    return read_output(folder / f"{model.name}-out")


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_classifier_gives_what_its_bundle_gives_and_is_called_unverified(
    kind: str, picture: Callable[..., bytes], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(f"{kind}_bundle")
    cells = TEXTS if kind == "text" else [picture(seed=1), None, picture(seed=2, form="JPEG"), b"none"]
    pq.write_table(pa.table({"cell": cells}), tmp_path / "in.parquet")
    outputs = []
    for model, verified in ((bundle, True), (lay_out(bundle, tmp_path / "foreign"), False)):
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", model, "-o", tmp_path / f"out-{verified}")
        assert done.code == 0, done.err
        assert (done.result["verified"], done.result["proved"]) == (verified, True if verified else None)
        assert ("foreign is unverified" in done.err) == (not verified)
        outputs.append(read_output(tmp_path / f"out-{verified}"))
    assert outputs[0].equals(outputs[1])
    assert outputs[0]["predicted_label"].null_count < len(cells)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_states_are_pooled_as_sentence_transformers_would(mode: str, normalised: bool, tmp_path: Path) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    say_how(checkpoint, STEPS if normalised else STEPS[:2], {"pooling_mode": mode})
    bundle = export_once(checkpoint)
    foreign = lay_out(bundle, tmp_path / "foreign", "onnx/model.onnx")
    say_how(foreign, STEPS if normalised else STEPS[:2], {"pooling_mode": mode})
    (foreign / "pytorch_model.bin").write_bytes(b"never opened")
    table = pa.table({"text": TEXTS})
    expected, found = run(bundle, table, tmp_path), run(foreign, table, tmp_path, "--batch-tokens", 64)
    compare_embeddings(found, expected)
    assert open_bundle(foreign).output == "last_hidden_state"


def compare_embeddings(found: pa.Table, expected: pa.Table) -> None:
    assert found["error"].equals(expected["error"])
    for one, other in zip(found["embedding"].to_pylist(), expected["embedding"].to_pylist(), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_embedding_that_the_graph_pools_itself_is_used_as_it_is(embedder: Path, tmp_path: Path) -> None:
    def rename(model: onnx_ir.Model) -> None:
        model.graph.outputs[0].name = "sentence_embedding"
        model.graph.outputs.reverse()  # the order says nothing

    foreign = lay_out(embedder, tmp_path / "foreign")
    change_graph(foreign / "model.onnx", rename)
    say_how(foreign, STEPS, {"pooling_mode": "cls"})
    table = pa.table({"text": TEXTS})
    compare_embeddings(run(foreign, table, tmp_path), run(embedder, table, tmp_path))


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_either_runtime_gives_the_output_that_is_asked_for(device: str, embedder: Path) -> None:
    ids = np.array([[2, 6, 7, 3], [2, 8, 3, 0]], np.int64)
    feeds = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    shapes = {None: (2, 32), "embedding": (2, 32), "last_hidden_state": (2, 4, 32)}
    for output, shape in shapes.items():
        session = open_session(embedder / "model.onnx", find_device(device), output=output)
        assert session.run(feeds).shape == shape


def test_a_signature_is_what_onnxruntime_says(text_bundle: Path, image_bundle: Path, embedder: Path) -> None:
    import onnxruntime

    for bundle in (text_bundle, image_bundle, embedder):
        session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
        signature = read_signature(bundle / "model.onnx")
        for nodes, values in ((session.get_inputs(), signature.inputs), (session.get_outputs(), signature.outputs)):
            assert [node.name for node in nodes] == list(values)
            for node, value in zip(nodes, values.values(), strict=True):
                assert node.type == {"int64": "tensor(int64)", "float32": "tensor(float)"}[value.element]
                assert value.shape == tuple(side if isinstance(side, int) else None for side in node.shape)


def test_a_run_goes_on_only_with_the_files_it_began_with(text_bundle: Path, reviews: Path, tmp_path: Path) -> None:
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    words = ["run", reviews, "-m", foreign, "-o", tmp_path / "out"]
    assert run_tfbatch(*words).result["status"] == "done"
    assert run_tfbatch(*words).result["status"] == "already done"
    change_json(foreign / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    refused = run_tfbatch(*words)
    assert refused.code == BadConfiguration.exit_code, refused.err


def test_two_labels_without_names_are_the_hubs(text_bundle: Path, tmp_path: Path) -> None:
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    del config["id2label"]
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadConfiguration, match=r"names 2 labels \(id2label\), the graph gives 3"):
        open_bundle(foreign)


def test_a_folder_with_a_manifest_is_held_to_it(text_bundle: Path, tmp_path: Path) -> None:
    """However broken: else a bundle could be passed off as unverified."""
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    (foreign / "tfbatch.json").symlink_to("nowhere")
    with pytest.raises(BadConfiguration, match="is not a bundle"):
        open_bundle(foreign)


def link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "blob")
    (folder / "model.onnx").symlink_to(folder.parent / "blob")


def link_twice(folder: Path) -> None:
    os.link(folder / "tokenizer.json", folder.parent / "second name")


def link_the_pooling(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "config.json").write_text("{}")
    (folder / "1_Pooling").symlink_to(folder.parent / "elsewhere")


def name_another_output(folder: Path) -> None:
    change_graph(folder / "model.onnx", lambda model: setattr(model.graph.outputs[0], "name", "start_logits"))


def name_another_input(folder: Path) -> None:
    change_graph(folder / "model.onnx", lambda model: setattr(model.graph.inputs[2], "name", "position_ids"))


def halve(folder: Path) -> None:
    def change(model: onnx_ir.Model) -> None:
        model.graph.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)

    change_graph(folder / "model.onnx", change)


def cut_off(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


def cut_on_the_left(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", truncation_side="left")


def name_no_length(folder: Path) -> None:
    change_json(folder / "config.json", max_position_embeddings=None)
    change_json(folder / "tokenizer_config.json", model_max_length=10**30)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (link, "model.onnx is a link or not a plain file; copy the folder"),
        (link_twice, "tokenizer.json is a link"),
        (link_the_pooling, "1_Pooling/config.json is a link"),
        (name_another_output, "the graph gives start_logits; what can be used is any of logits"),
        (name_another_input, r"the graph takes .*position_ids \(int64\); what can be given is attention_mask"),
        (halve, "logits is float16; export the graph in float32"),
        (cut_off, "is not an ONNX file"),
        (cut_on_the_left, r"cuts long texts on the left \(truncation_side\)"),
        (name_no_length, "names no length to cut texts at"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "its own files cannot be understood"),
        (lambda folder: change_json(folder / "config.json", id2label={"0": "a", "7": "b"}), "names 2 labels"),
        (lambda folder: change_json(folder / "config.json", architectures=["BertForMaskedLM"]), "BertForMaskedLM in"),
        (lambda folder: change_json(folder / "config.json", architectures=None), "names no class in"),
    ],
)
def test_what_cannot_be_run_as_it_is_meant_is_refused(
    change: Callable[[Path], None], reason: str, text_bundle: Path, tmp_path: Path
) -> None:
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    change(foreign)
    with pytest.raises(BadConfiguration, match=reason):
        open_bundle(foreign)


def test_foreign_operators_and_weights_elsewhere_are_refused(text_bundle: Path, tmp_path: Path) -> None:
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    graph = foreign / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole.replace(b"com.microsoft", b"com.microsofT"))
    with pytest.raises(BadConfiguration, match="operators of com.microsofT"):
        open_bundle(foreign).graph_path("fp32")
    graph.write_bytes(whole)
    onnx_ir.save(onnx_ir.load(graph), graph, external_data="model.onnx_data")
    with pytest.raises(BadConfiguration, match="weights outside of itself"):
        open_bundle(foreign).graph_path("fp32")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": {"shortest_edge": 32}}, "gives no fixed size"),
        (EDGE | {"do_center_crop": False}, "gives no fixed size"),
        (EDGE | {"image_processor_type": "ViTImageProcessor"}, "gives no fixed size"),
        (EDGE | {"size": {"shortest_edge": 40, "longest_edge": 60}}, "gives no fixed size"),
        (EDGE | {"size": {"shortest_edge": 30}}, r"crops \(32, 32\) of \(30, 30\)"),
        ({"do_resize": False}, "gives no fixed size"),
        ({"size": {"height": 28, "width": 32}}, "gives 28 x 32 pixels, the model takes 32 x 32"),
        ({"do_center_crop": True, "crop_size": {"height": 40, "width": 40}}, r"crops \(40, 40\) of \(32, 32\)"),
        ({"do_reduce_labels": True}, "does do_reduce_labels"),
        ({"resample": None}, "does not say resample: put in what ViT's processor has by default"),
        (
            {"image_processor_type": "CLIPImageProcessor", "resample": 3, "do_center_crop": None},
            "does not say do_center_crop: put in what CLIP's",
        ),
        ({"image_mean": [0.5]}, "has no image_mean and image_std of three channels"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "is that of EfficientNet"),
    ],
)
def test_pictures_that_would_be_prepared_otherwise_are_refused(
    changes: dict[str, Any], reason: str, image_bundle: Path, tmp_path: Path
) -> None:
    foreign = lay_out(image_bundle, tmp_path / "foreign")
    change_json(foreign / "preprocessor_config.json", **changes)
    with pytest.raises(BadConfiguration, match=reason):
        open_bundle(foreign)


def test_pictures_are_resized_by_their_shorter_edge_as_a_bundle_of_the_same_processor_does(
    image_checkpoint: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(image_checkpoint, checkpoint)
    change_json(checkpoint / "preprocessor_config.json", **EDGE)
    bundle = export_once(checkpoint)
    foreign = lay_out(bundle, tmp_path / "foreign")
    table = pa.table({"image": [picture((90, 50), seed=1), picture((50, 90), seed=2), picture((32, 32), seed=3)]})
    expected, found = run(bundle, table, tmp_path), run(foreign, table, tmp_path)
    assert (found["error"].null_count, found.equals(expected)) == (3, True)


def test_positions_that_begin_after_the_padding_shorten_the_texts(text_bundle: Path, tmp_path: Path) -> None:
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    change_json(foreign / "config.json", model_type="roberta", pad_token_id=1)
    assert open_bundle(foreign).setting("max_length") == load_bundle(text_bundle).setting("max_length") - 2


def test_a_prompt_is_refused_where_the_graph_pools_too(tmp_path: Path) -> None:
    """What a graph gives as a sentence's embedding lacks the words that would stand before the text."""
    from tfbatch.bundles.pooling import ends_at_length_one, refuse_prompt

    steps = [
        {"type": f"sentence_transformers.models.{step}", "path": ""} for step in ("Transformer", "Pooling", "Normalize")
    ]
    for count, is_normalised in ((3, True), (2, False)):
        (tmp_path / "modules.json").write_text(json.dumps(steps[:count]))
        assert ends_at_length_one(tmp_path) is is_normalised
    (tmp_path / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query"}')
    with pytest.raises(BadConfiguration, match="prompt"):
        refuse_prompt(tmp_path)
