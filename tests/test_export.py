import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
import transformers
from bundles import change_json, change_one_weight, copy_bundle
from conftest import run_tfbatch, tfbatch_env
from fusion import fused_and_compared
from onnx_ir import Node
from text_checkpoints import LABELS, TOKENIZERS, make_config
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.errors import (
    BadConfiguration,
    ExportNotVerified,
    NoInput,
    OutputFailed,
    OutputRefused,
    UsageError,
)
from tfbatch.tasks import task_names
from tfbatch_export import graphs as graphs_module
from tfbatch_export.checkpoint import find_checkpoint, load_model
from tfbatch_export.checkpoints.files import check_files
from tfbatch_export.config import ExportConfig
from tfbatch_export.destination import move_in
from tfbatch_export.export import export
from tfbatch_export.families import family_names, load_family, tasks_of
from tfbatch_export.verify import verify
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForMaskedImageModeling,
    Swin2SRConfig,
    Swin2SRForImageSuperResolution,
    SwinConfig,
    SwinForMaskedImageModeling,
    ViTConfig,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

BASE_FUSED = {"Attention": 0, "LayerNormalization": 25, "BiasGelu": 12, "Softmax": 0}


@pytest.mark.parametrize(
    ("name", "model_class", "config"),
    [
        pytest.param("bert", BertForSequenceClassification, BertConfig(), marks=pytest.mark.families),
        ("vit", ViTForImageClassification, ViTConfig()),
    ],
)
def test_a_base_model_is_fused_in_every_layer_and_equal_to_torch(
    name: str, model_class: Any, config: Any, tmp_path: Path
) -> None:
    task = "text-classification" if name == "bert" else "image-classification"
    counts, parity = fused_and_compared(name, task, model_class(config), tmp_path)
    attentions = {"Attention": 11, "MultiHeadAttention": 1} if name == "vit" else {"MultiHeadAttention": 12}
    fused = BASE_FUSED | attentions
    assert {operator: counts.get(operator, 0) for operator in fused} == fused
    assert len(parity) == (24 if name == "bert" else 3)
    assert min(record["label_agreement"] for record in parity) == 1


PICTURE_MODELS = {
    "vit": ("masked-im", ViTForMaskedImageModeling, ViTConfig(), {"Attention": 12}),
    "deit": ("masked-im", DeiTForMaskedImageModeling, DeiTConfig(num_hidden_layers=3), {"Attention": 3}),
    "vit_mae": ("masked-im", ViTMAEForPreTraining, ViTMAEConfig(), {"Attention": 20}),
    "swin": (
        "masked-im", SwinForMaskedImageModeling,
        SwinConfig(depths=[2, 2, 2], num_heads=[3, 6, 12], image_size=112, encoder_stride=16),
        {"MultiHeadAttention": 6},
    ),
    "swin2sr": (
        "image-to-image", Swin2SRForImageSuperResolution,
        Swin2SRConfig(embed_dim=60, depths=[2, 2], num_heads=[6, 6]), {"MultiHeadAttention": 4},
    ),
}  # fmt: skip


BASE_SIZED = ("vit", "vit_mae")  # which take the longest


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.families if name in BASE_SIZED else ()) for name in PICTURE_MODELS]
)
def test_a_model_that_makes_pictures_is_fused_in_every_layer_and_equal_to_torch(name: str, tmp_path: Path) -> None:
    task, model_class, config, attention = PICTURE_MODELS[name]
    torch.manual_seed(0)
    counts, parity = fused_and_compared(name, task, model_class(config), tmp_path)
    assert {operator: counts[operator] for operator in attention} == attention
    sizes = {record["batch"].split()[0] for record in parity}
    assert sizes == {"1", "3", "8"}
    if name == "swin2sr":
        assert len({record["batch"].split(" x ", 1)[1] for record in parity}) == 5


def test_text_parity_covers_every_size_and_length_padded_and_not() -> None:
    names = set(load_family("bert", "text-classification").parity_batches(BertConfig()))
    assert names == {
        f"{size} x {length}{padding}"
        for size in (1, 2, 7)
        for length in (2, 17, 128, 512)
        for padding in ("", ", padded")
    }


def test_an_attention_left_unfused_is_refused_and_leaves_no_bundle(
    text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        split_attention(next(node for node in fused.graph if node.op_type == "Attention"), fused)
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    with pytest.raises(ExportNotVerified, match="0 Attention of 1") as caught:
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "bundle"))
    assert caught.value.exit_code == 70
    assert list(tmp_path.iterdir()) == []


def split_attention(node: Node, model: onnx_ir.Model) -> None:
    """Compute an Attention's projection by itself and leave the rest to MultiHeadAttention: equal
    numbers, but not the operator that was promised."""
    hidden, weight, bias = node.inputs[:3]
    projected = onnx_ir.node("MatMul", [hidden, weight])
    biased = onnx_ir.node("Add", [projected.outputs[0], bias])
    split = onnx_ir.node("Split", [biased.outputs[0]], {"axis": -1, "num_outputs": 3}, num_outputs=3)
    heads = node.attributes["num_heads"].as_int()
    attention = onnx_ir.node("MultiHeadAttention", split.outputs, {"num_heads": heads}, domain="com.microsoft")
    model.graph.insert_before(node, [projected, biased, split, attention])
    onnx_ir.convenience.replace_all_uses_with(node.outputs[0], attention.outputs[0])
    model.graph.remove(node, safe=True)


def test_a_changed_weight_is_refused_and_leaves_no_bundle(
    text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        change_one_weight(fused)
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    with pytest.raises(ExportNotVerified, match="differs from PyTorch by") as caught:
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "bundle"))
    assert caught.value.exit_code == 70
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports_and_verifies_with_a_last_line_of_json(text_checkpoint: Path, tmp_path: Path) -> None:
    exported = run_tfbatch("export", text_checkpoint, "-o", tmp_path / "bundle")
    assert exported.code == 0, exported.err
    assert "MultiHeadAttention" in exported.err
    graph = exported.result["graphs"]["fp32"]
    assert (graph["layers"], graph["fused"]["Attention"], graph["fused"]["MultiHeadAttention"]) == (2, 0, 2)
    assert graph["max_abs_difference"] < 1e-4
    verified = run_tfbatch("verify", tmp_path / "bundle")
    assert verified.code == 0, verified.err
    assert verified.result["parity_repeated"] is True


def test_verify_finds_a_graph_that_was_swapped_with_its_hash(text_bundle: Path, tmp_path: Path) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    graph = onnx_ir.load(copy / "model.onnx")
    change_one_weight(graph)
    onnx_ir.save(graph, copy / "model.onnx")
    with pytest.raises(BadConfiguration, match="not the file that was verified"):
        verify(copy, None)
    manifest = json.loads((copy / "tfbatch.json").read_text())
    from tfbatch.host.hashes import sha256

    manifest["files"]["model.onnx"] = sha256(copy / "model.onnx")
    (copy / "tfbatch.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportNotVerified, match="differs from PyTorch"):
        verify(copy, None)


@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        ({"labels": ["positive", "neutral", "negative"]}, ExportNotVerified, "has other labels than the checkpoint"),
        ({"settings": {"max_length": 32}}, ExportNotVerified, "has other max_length than the checkpoint"),
        ({"graphs": {}}, BadConfiguration, "names no graph"),
        ({"source": {}}, BadConfiguration, "does not say what checkpoint"),
        ({"family": 3}, BadConfiguration, "family cannot be read"),
        ({"family": "gpt2"}, BadConfiguration, "gpt2"),
    ],
)
def test_verify_finds_a_manifest_that_says_something_else(
    changed: dict[str, Any], kind: type[Exception], reason: str, text_bundle: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    change_json(copy / "tfbatch.json", **changed)
    with pytest.raises(kind, match=reason):
        verify(copy, None)


def test_a_model_of_few_positions_is_exported_and_one_of_none_for_a_word_is_not(tmp_path: Path) -> None:
    for positions in (2, 3, 15):
        folder = tmp_path / str(positions)
        config = make_config("bert", TOKENIZERS["bert"](), LABELS)
        config.max_position_embeddings = positions
        BertForSequenceClassification(config).save_pretrained(folder)
        TOKENIZERS["bert"]().save_pretrained(folder)
        asked = ExportConfig(model=str(folder), output=tmp_path / f"bundle{positions}")
        if positions < 3:
            with pytest.raises(BadConfiguration, match="no number of tokens from 3 on"):
                export(asked)
        else:
            bundle = export(asked)
            compared = {record["batch"] for record in bundle.manifest.graphs["fp32"].parity}
            assert (bundle.longest, f"7 x {positions}" in compared) == (positions, True)


def test_a_length_with_a_point_is_a_number(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "checkpoint")
    change_json(folder / "tokenizer_config.json", model_max_length=32.0)
    assert export(ExportConfig(model=str(folder), output=tmp_path / "bundle")).longest == 32


def test_what_pytorch_cannot_do_is_the_fault_of_the_configuration(image_checkpoint: Path, tmp_path: Path) -> None:
    config = ViTConfig(image_size=32, patch_size=8, hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    ViTForMaskedImageModeling(config).save_pretrained(tmp_path / "vit")  # whose encoder_stride is 16
    shutil.copy(image_checkpoint / "preprocessor_config.json", tmp_path / "vit")
    with pytest.raises(BadConfiguration, match="PyTorch cannot trace this model as it is configured: .*encoder_stride"):
        export(ExportConfig(model=str(tmp_path / "vit"), output=tmp_path / "bundle"))


def test_the_manifest_records_where_the_weights_came_from(text_bundle: Path, text_checkpoint: Path) -> None:
    manifest = load_bundle(text_bundle).manifest
    assert manifest.source["name"] == str(text_checkpoint)
    assert list(manifest.source["weights"]) == ["model.safetensors"]
    assert manifest.labels == ["negative", "neutral", "positive"]
    assert {"torch", "transformers", "onnxruntime"} <= set(manifest.versions)


def test_a_local_checkpoint_is_recorded_so_that_it_is_found_from_elsewhere(
    text_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text_checkpoint.parent)
    assert find_checkpoint(text_checkpoint.name, None).source["name"] == str(text_checkpoint)


def test_an_export_that_is_ended_leaves_nothing(text_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfbatch.cli", "export", str(text_checkpoint), "-o", str(tmp_path / "bundle")]
    process = subprocess.Popen(command, env=tfbatch_env(), stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".bundle.*")):
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 143
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_checkpoint_is_refused(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((text_checkpoint / "config.json").read_bytes())
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(BadConfiguration, match="no .safetensors weights"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_a_checkpoint_without_its_preprocessor_is_refused(
    text_checkpoint: Path, image_checkpoint: Path, tmp_path: Path
) -> None:
    for checkpoint, gone, reason in (
        (text_checkpoint, ["tokenizer.json", "tokenizer_config.json"], "has no tokenizer"),
        (image_checkpoint, ["preprocessor_config.json"], "has no preprocessor_config.json"),
    ):
        folder = copy_bundle(checkpoint, tmp_path / checkpoint.name)
        for name in gone:
            (folder / name).unlink()
        with pytest.raises(BadConfiguration, match=reason):
            export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_real_rows_are_compared_where_they_are_given(text_checkpoint: Path, reviews: Path, tmp_path: Path) -> None:
    bundle = export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "bundle", samples=reviews))
    parity = bundle.manifest.graphs["fp32"].parity
    assert any("real rows" in record["batch"] for record in parity)
    with pytest.raises(NoInput, match="--samples"):
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "b", samples=tmp_path / "none.parquet"))
    for told in ({"samples_column": "text"}, {"samples_pair_column": "text"}, {"samples_labels": ("a",)}):
        with pytest.raises(UsageError, match="say how --samples is read"):
            export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "b", **told))


def test_a_checkpoint_without_a_trained_head_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    config = BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(config).save_pretrained(folder)
    with pytest.raises(BadConfiguration, match="classifier.bias, classifier.weight"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle", task="text-classification"))
    transformers.BertForNextSentencePrediction(config).save_pretrained(folder)
    with pytest.raises(UsageError, match="saved from BertForNextSentencePrediction; .* feature-extraction, fill-mask"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("name", "asking"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Mine"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["modeling.Mine", None]}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "modeling.Mine"}}),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoImageProcessor": "modeling.Mine"}}}),
    ],
)
def test_remote_code_is_refused(name: str, asking: dict[str, Any], text_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "remote")
    change_json(folder / name, **asking)
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises(BadConfiguration, match=f"code of its own .auto_map in {name}"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_a_checkpoint_that_is_broken_or_lies_elsewhere_too_is_refused_without_a_traceback(
    text_checkpoint: Path, tmp_path: Path
) -> None:
    weights = (text_checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "elsewhere.safetensors").write_bytes(weights)
    changes: list[tuple[str, bytes, str]] = [
        ("config.json", b'{"model_type": "bert"', "config.json cannot be read"),
        ("config.json", b"[]", "config.json holds no names with values"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("model.safetensors", weights[:1000], "cannot be loaded: "),
        ("tokenizer.json", b"{}", "cannot be loaded: "),
        ("adapter_config.json", b"{}", "has an adapter beside its weights"),
    ]
    for place, (name, content, reason) in enumerate(changes):
        folder = copy_bundle(text_checkpoint, tmp_path / str(place))
        (folder / name).write_bytes(content)
        with pytest.raises(BadConfiguration, match=reason):
            export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))
    folder = copy_bundle(text_checkpoint, tmp_path / "pieces")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    check_files(folder, "whole, with an index that is left from before")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(BadConfiguration, match=r"do not lie beside it in .*: \.\./elsewhere\.safetensors"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))
    folder = copy_bundle(text_checkpoint, tmp_path / "labels")
    change_json(folder / "config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(BadConfiguration, match="cannot be loaded: .*mismatch"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("tokenizer_config.json", {"truncation_side": "left"}, "cuts long texts on the left"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "takes special tokens in a text apart"),
        ("tokenizer_config.json", {"model_max_length": 2}, "model_max_length of the tokenizer is 2"),
        ("config.json", {"position_embedding_type": "relative_key"}, "positions of another kind, relative_key"),
        ("config.json", {"id2label": {"1": "a", "2": "b", "3": "c"}}, "does not name each of the classes"),
        ("config.json", {"id2label": {"0": "a", "1": None, "2": "c"}}, "id2label"),
    ],
)
def test_what_run_would_do_otherwise_is_refused(
    name: str, changed: dict[str, Any], reason: str, text_checkpoint: Path, tmp_path: Path
) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "checkpoint")
    change_json(folder / name, **changed)
    with pytest.raises(BadConfiguration, match=reason):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_labels_that_are_numbers_are_written_out(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "checkpoint")
    change_json(folder / "config.json", id2label={"0": 1, "1": 2, "2": 5}, label2id=None)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert load_family("bert", "text-classification").labels(config) == ["1", "2", "5"]


def test_a_token_that_the_model_has_no_row_for_is_refused_however_many_there_are(
    text_checkpoint: Path, tmp_path: Path
) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "checkpoint")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["film"] = 20
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadConfiguration, match="has a token 20, the model knows 20 from 0 on"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def test_types_of_tokens_that_a_family_has_no_input_for_are_refused(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "checkpoint")
    config = transformers.RobertaConfig(**TINY, vocab_size=20, max_position_embeddings=66, pad_token_id=0)
    transformers.RobertaForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(BadConfiguration, match="knows 2 types of tokens"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_a_graph_that_takes_all_tokens_for_those_of_a_first_text_is_refused(
    text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        types = next(value for value in fused.graph.inputs if value.name == "token_type_ids")
        (use,) = [use for use in types.uses() if use.node.op_type == "Gather"]
        zeros = onnx_ir.node("Sub", [types, types])
        fused.graph.insert_before(use.node, [zeros])
        use.node.replace_input_with(use.idx, zeros.outputs[0])
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    with pytest.raises(ExportNotVerified, match="differs from PyTorch by"):
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "bundle"))


def test_a_head_may_have_a_gelu_where_the_layers_have_none(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(**TINY, vocab_size=99, max_position_embeddings=66, hidden_act="relu")
    counts, _ = fused_and_compared("roberta", "fill-mask", transformers.RobertaForMaskedLM(config), tmp_path)
    assert (counts["MultiHeadAttention"], counts["BiasGelu"]) == (2, 1)


def test_sides_given_as_two_numbers_are_one_or_are_refused(image_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(image_checkpoint, tmp_path / "pairs")
    change_json(folder / "config.json", image_size=[32, 32], patch_size=[8, 8])
    family = load_family("vit", "image-classification")
    config = load_model(find_checkpoint(str(folder), None), "image-classification", family).config
    assert (config.image_size, config.patch_size) == (32, 8)
    ViTForImageClassification(ViTConfig(**TINY, image_size=[32, 64], patch_size=8)).save_pretrained(folder)
    with pytest.raises(BadConfiguration, match=r"image_size is .32, 64.; what can be exported is square"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_a_model_that_is_nowhere_says_so(tmp_path: Path) -> None:
    done = run_tfbatch("export", "nobody/nothing", "-o", tmp_path / "bundle", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.code == NoInput.exit_code
    assert "nobody/nothing is neither a folder nor to be had from the Hub" in done.err
    assert "Traceback" not in done.err


def test_an_unknown_family_names_those_there_are(text_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy_bundle(text_checkpoint, tmp_path / "unknown")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=f"there are: {', '.join(family_names())}"):
        export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))


def test_export_replaces_a_bundle_only_when_told_and_nothing_else_ever(
    text_checkpoint: Path, text_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputRefused, match="--overwrite"):
        export(ExportConfig(model=str(text_checkpoint), output=text_bundle))
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(OutputRefused, match="not a bundle"):
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path, overwrite=True))
    assert (tmp_path / "precious.txt").read_text() == "mine"
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    for name in ("notes.txt", "folder", "link"):
        match name:
            case "notes.txt":
                (copy / name).write_text("mine")
            case "folder":
                (copy / name).mkdir()
            case "link":
                (copy / name).symlink_to(copy / "model.onnx")
        with pytest.raises(OutputRefused, match=f"no file of the bundle's, {name};"):
            export(ExportConfig(model=str(text_checkpoint), output=copy, overwrite=True))
        (copy / name).rename(tmp_path / name)
    (copy / "tfbatch.json").write_text("torn")
    with pytest.raises(OutputRefused, match="does not say which files"):
        export(ExportConfig(model=str(text_checkpoint), output=copy, overwrite=True))


def test_export_replaces_nothing_that_it_is_called_in_or_reads(
    text_checkpoint: Path, text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    (tmp_path / "link").symlink_to(copy)
    for folder, output in ((copy, "."), (copy, "../copy"), (copy, str(tmp_path / "link"))):
        monkeypatch.chdir(folder)
        with pytest.raises(OutputRefused, match="is it or lies in it"):
            export(ExportConfig(model=str(text_checkpoint), output=Path(output), overwrite=True))
    monkeypatch.chdir(tmp_path)
    for facts in ({"model": str(copy)}, {"model": str(text_checkpoint), "samples": tmp_path / "link" / "model.onnx"}):
        with pytest.raises(OutputRefused, match="is it or lies in it"):
            export(ExportConfig(**facts, output=copy, overwrite=True))
    assert load_bundle(copy).path == copy


def test_a_link_to_a_bundle_stays_one_when_it_is_replaced(
    text_checkpoint: Path, text_bundle: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    before = (copy / "model.onnx").stat().st_ino
    (tmp_path / "link").symlink_to(copy)
    export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "link", overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "link"]
    assert load_bundle(copy).graph_path("fp32").stat().st_ino != before


def test_a_folder_that_appears_while_a_bundle_is_made_is_not_replaced(
    text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_and_disturb(path: Path) -> Bundle:
        (tmp_path / "bundle").mkdir()
        return load_bundle(path)

    monkeypatch.setattr("tfbatch_export.export.load_bundle", load_and_disturb)
    with pytest.raises(OutputRefused, match="--overwrite"):
        export(ExportConfig(model=str(text_checkpoint), output=tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_old_bundle_comes_back_where_the_new_one_cannot_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("place", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
    move_in(tmp_path / "new", tmp_path / "place", tmp_path / "aside")
    assert (tmp_path / "place" / "model.onnx").read_text() == "new"
    (tmp_path / "new").mkdir()
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    def be_ended(path: Path, target: Path) -> Path:
        rename(path, target)
        if path.name == "place":
            raise SystemExit(143)
        return target

    def be_ended_late(path: Path, target: Path) -> Path:
        rename(path, target)
        if path.name == "new":
            raise SystemExit(143)
        return target

    for disturbed, error in ((fail, OutputFailed), (be_ended, SystemExit)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", disturbed)
            with pytest.raises(error):
                move_in(tmp_path / "new", tmp_path / "place", tmp_path / "aside")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "place"]
        assert (tmp_path / "place" / "model.onnx").read_text() == "new"
    monkeypatch.setattr(Path, "rename", be_ended_late)
    with pytest.raises(SystemExit):
        move_in(tmp_path / "new", tmp_path / "place", tmp_path / "aside")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize(("name", "task"), [(name, task) for name in family_names() for task in tasks_of(name)])
def test_every_family_keeps_the_contract(name: str, task: str) -> None:
    family = load_family(name, task)
    assert task in task_names()
    (model_type,) = {name, name.replace("_", "-")} & set(transformers.models.auto.CONFIG_MAPPING)
    config = transformers.AutoConfig.for_model(model_type)
    assert family.layers(config) > 0
    expected = family.expected(config)
    assert family.layers(config) in (expected.get("Attention"), expected.get("MultiHeadAttention"))
    assert expected["Softmax"] == 0
    samples, axes = family.trace_inputs(config)
    assert set(axes) <= set(samples) <= set(family.inputs)
    for batch in family.parity_batches(config).values():
        assert set(batch) == set(family.inputs)


def test_a_graph_loads_in_plain_onnxruntime_with_the_hubs_input_names(text_bundle: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(text_bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    ids = np.full((2, 5), 6, np.int64)
    (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids})
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("name", ["vit_mae", "swin2sr"])
def test_a_tampered_graph_of_a_model_that_makes_pictures_is_refused(
    name: str, picture_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        if name == "vit_mae":
            change_one_weight(fused)
        else:  # an attention that does not know where its pixels are
            node = next(node for node in fused.graph if node.op_type == "MultiHeadAttention")
            node.replace_input_with(5, None)
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    with pytest.raises(ExportNotVerified, match="differs from PyTorch by"):
        export(ExportConfig(model=str(picture_model(name)[0]), output=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_that_was_never_trained_is_refused_by_name(image_checkpoint: Path, tmp_path: Path) -> None:
    """A classifier's body has no decoder, nor a token for what is masked."""
    with pytest.raises(BadConfiguration, match=r"decoder\.0\.bias, decoder\.0\.weight.*mask_token"):
        export(ExportConfig(model=str(image_checkpoint), output=tmp_path / "bundle", task="masked-im"))
    assert not (tmp_path / "bundle").exists()
