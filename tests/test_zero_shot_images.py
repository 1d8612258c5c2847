"""Labels that are told at run: scores are those of the Hub's pipeline, embeddings those of its models."""

import io
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bundles import change_one_weight, copy_bundle
from conftest import export_once, read_output, run_tfbatch
from PIL import Image
from real_rows import real_pictures
from tfbatch.bundle import load_bundle
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, ExportNotVerified, UsageError
from tfbatch.host.hashes import sha256
from tfbatch.predictions.labels import Labels
from tfbatch.runtimes.device import find_device
from tfbatch_export.checkpoints.preprocessor import read_preprocessor
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from tfbatch_export.families import clip as clip_family
from tfbatch_export.families import load_family, sides_of
from tfbatch_export.graphs import build_graph
from tfbatch_export.parity import compute_references, measure_way
from tfbatch_export.rewrites.operators import check_fusion, count_operators
from tfbatch_export.verify import verify
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    pipeline,
)

TASK = "zero-shot-image-classification"
LABELS = ["a shirt", "Trouser", "ankle boot, brown", "bag", "a very long dress of many colours and buttons", "sandal"]
SPOKEN = ", ".join(f'"{label}"' if "," in label else label for label in LABELS)
SENTENCES = [f"this is a photo of {label.lower()}" for label in LABELS]
TOWER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
VISION = TOWER | {"image_size": 32, "patch_size": 8}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte pairs, lower-cased, with `</w>` at the ends of words: letters, and what joins a few words
    from the left. The end of a text is the largest token, as CLIP has it."""
    letters = sorted(set("".join(SENTENCES)) - {" "})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in dict.fromkeys(word for sentence in SENTENCES[:3] for word in sentence.replace(",", "").split()):
        ends = [*word[:-1], f"{word[-1]}</w>"]
        for place in range(1, len(word)):
            pair = word[:place], ends[place]
            if "".join(pair) not in tokens:
                merges.append(pair)
                tokens.append("".join(pair))
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def siglip_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of a unigram model as T5 has them, of texts in lower case without punctuation."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    words = dict.fromkeys(word for sentence in SENTENCES[:3] for word in sentence.replace(",", "").split())
    letters = sorted(set("".join(SENTENCES)) - {" ", ","})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(letter, -6.0) for letter in letters] + [(f"▁{word}", -3.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>", model_max_length=64,
        model_input_names=["input_ids"],
    )  # fmt: skip


def make_model(name: str, folder: Path) -> Path:
    """Two towers of 3 layers, 32 wide, untrained, and their tokenizer and image processor."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(1)
    size = {"height": 32, "width": 32}
    tokenizer: Any = clip_tokenizer() if name == "clip" else siglip_tokenizer()
    text = TOWER | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if name == "clip":
        text |= {"max_position_embeddings": 77}
        config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24, initializer_factor=4.0)
        model: Any = CLIPModel(config)
        CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    else:
        text |= {"max_position_embeddings": 64, "projection_size": 32}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
        with torch.no_grad():
            model.logit_scale.fill_(math.log(10))
            model.logit_bias.fill_(-1)
        SiglipImageProcessorPil(size=size).save_pretrained(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The checkpoint and the bundle of a family, made once each."""
    root = tmp_path_factory.mktemp("towers")

    @cache
    def make(name: str) -> tuple[Path, Path]:
        checkpoint = make_model(name, root / name)
        return checkpoint, export_once(checkpoint)

    return make


def test_towers_of_two_widths_are_refused(tmp_path: Path) -> None:
    checkpoint = make_model("siglip", tmp_path / "siglip")
    config = SiglipConfig.from_pretrained(checkpoint)
    config.text_config.projection_size = 16
    SiglipModel(config).save_pretrained(checkpoint)
    with pytest.raises(BadConfiguration, match="pictures become 32 numbers and texts 16"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pictures of many sizes and forms."""
    path = tmp_path_factory.mktemp("pictures") / "in.parquet"
    pq.write_table(pa.table({"image": real_pictures()[:200]}), path)
    return path


def hub_pipeline(name: str, checkpoint: Path) -> Any:
    from transformers import AutoImageProcessor

    kind = CLIPTokenizer if name == "clip" else PreTrainedTokenizerFast
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    tokenizer = kind.from_pretrained(checkpoint)
    return pipeline(
        TASK, model=str(checkpoint), tokenizer=tokenizer, image_processor=processor, device="cpu", dtype="float32"
    )


@pytest.mark.parametrize("name", ["clip", pytest.param("siglip", marks=pytest.mark.families)])
def test_scores_equal_the_hubs_pipeline_on_two_hundred_pictures(
    name: str, towers: Callable[[str], tuple[Path, Path]], pictures: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = towers(name)
    reference = hub_pipeline(name, checkpoint)
    opened = [Image.open(io.BytesIO(data)) for data in pq.read_table(pictures)["image"].to_pylist()]
    expected = [reference(picture, candidate_labels=LABELS) for picture in opened]
    words = ["--labels", SPOKEN, "--all-scores", "--exact-decoding", "-o", tmp_path / "out"]
    done = run_tfbatch("run", pictures, "-m", bundle, *words)
    assert done.code == 0, done.err
    found = read_output(tmp_path / "out").to_pylist()
    for row, wanted in zip(found, expected, strict=True):
        assert row["predicted_label"] == wanted[0]["label"]
        scores = {scored["label"]: scored["score"] for scored in row["predicted_scores"]}
        assert scores == pytest.approx({scored["label"]: scored["score"] for scored in wanted}, abs=1e-4)
    assert len({row["predicted_label"] for row in found}) >= 3
    assert np.ptp([row["predicted_score"] for row in found]) > 0.05


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.families
def test_one_label_and_another_template_score_as_the_hub_has_it(
    name: str, towers: Callable[[str], tuple[Path, Path]], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    checkpoint, bundle = towers(name)
    rows = [picture(seed=1), None, b"no picture", picture(seed=2)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "in.parquet")
    words = ["--labels", "bag", "--label-template", "many {}", "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", bundle, *words)
    assert done.code == 0, done.err
    found = read_output(tmp_path / "out").to_pylist()
    reference = hub_pipeline(name, checkpoint)
    for row, data in zip(found, rows, strict=True):
        assert (row["error"] is None) == (row["predicted_label"] == "bag") == (data not in (None, b"no picture"))
        if row["error"] is None:
            (wanted,) = reference(Image.open(io.BytesIO(data)), candidate_labels=["bag"], hypothesis_template="many {}")
            assert row["predicted_score"] == pytest.approx(wanted["score"], abs=1e-4)
    assert (found[0]["predicted_score"] == 1) == (name == "clip")


@pytest.mark.families
def test_both_graphs_are_fused_and_compared_in_every_layer(towers: Callable[[str], tuple[Path, Path]]) -> None:
    layers = {"Attention": 3, "Softmax": 0}
    expected = {
        "clip": (
            {"Attention": 2, "Softmax": 0, "QuickGelu": 3, "LayerNormalization": 8, "MultiHeadAttention": 1},
            layers | {"QuickGelu": 3, "LayerNormalization": 7},
        ),
        "siglip": (
            layers | {"FastGelu": 4, "LayerNormalization": 8, "MultiHeadAttention": 1},
            layers | {"FastGelu": 3, "LayerNormalization": 7},
        ),
    }
    for name, (pictures, texts) in expected.items():
        manifest = load_bundle(towers(name)[1]).manifest
        main, side = manifest.graphs["fp32"], manifest.side_graphs["text"]
        assert (main.fused, side.fused) == (pictures, texts)
        assert (manifest.inputs, side.inputs) == (["pixel_values", "text_embeds"], ["input_ids"])
        assert {"model.onnx", "model_text.onnx"} <= set(manifest.files)
        assert main.proofs["cpu fp32 f32"]
        assert side.proofs["cpu fp32 f32"]
        names = {record["batch"] for record in side.parity}
        assert names >= ({"7 x 17, padded", "7 x 77, padded"} if name == "clip" else {"7 x 17", "7 x 64"})
        for graph in (main, side):
            own = [record["max_abs_difference"] for record in graph.parity if record["precision"] == "fp32"]
            assert max(own) < 1e-4


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.families
def test_embeddings_of_pictures_and_texts_are_the_hubs_features(
    name: str, towers: Callable[[str], tuple[Path, Path]], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    reference = hub_pipeline(name, towers(name)[0])
    rows = [picture(seed=seed) for seed in range(3)]
    padding: dict[str, Any] = {"padding": True} if name == "clip" else {"padding": "max_length", "max_length": 64}
    with torch.inference_mode():
        pixels = reference.image_processor([Image.open(io.BytesIO(row)) for row in rows], return_tensors="pt")
        tokens = reference.tokenizer(LABELS, return_tensors="pt", **padding)
        features = reference.model.get_image_features(**pixels), reference.model.get_text_features(**tokens)
    tasks = {"image-feature-extraction": rows, "feature-extraction": LABELS}
    for (task, cells), expected in zip(tasks.items(), features, strict=True):
        bundle = tmp_path / f"bundle-{task}"
        export(ExportConfig(model=str(towers(name)[0]), output=bundle, task=task))
        pq.write_table(pa.table({"cell": cells}), tmp_path / "in.parquet")
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", bundle, "-o", tmp_path / task)
        assert done.code == 0, done.err
        found = np.array(read_output(tmp_path / task)["embedding"].to_pylist())
        np.testing.assert_allclose(found, expected.pooler_output, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "say which, as in --labels 'a cat,a dog'"),
        (["--labels", ""], "say which, as in --labels"),
        (["--labels", "bag,,shirt"], "has an empty label: 'bag', '', 'shirt'"),
        (["--labels", "bag, bag"], "has bag more than once"),
        (["--labels", '"bag'], "is no list of labels"),
        (["--labels", "bag,Bag"], "bag and Bag are the same to this model"),
        (["--labels", "bag,shirt", "--label-template", "a photo"], "'a photo' has no {}"),
        (["--labels", "bag,shirt", "--label-template", "{} {}"], "is no text with one {}"),
        (["--labels", "bag,shirt", "--label-template", "{name}"], "is no text with one {}"),
    ],
)
def test_labels_that_say_nothing_are_refused_before_a_row_is_read(
    words: list[str], reason: str, towers: Callable[[str], tuple[Path, Path]], pictures: Path, tmp_path: Path
) -> None:
    done = run_tfbatch("run", pictures, "-m", towers("clip")[1], "-o", tmp_path / "out", *words)
    assert done.code == UsageError.exit_code
    assert reason in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.families
def test_labels_that_the_tokenizer_does_not_know_are_refused(towers: Callable[[str], tuple[Path, Path]]) -> None:
    """Two unknown letters are one token to it."""
    with pytest.raises(UsageError, match="包 and 鞋 are the same to this model"):
        Labels(load_bundle(towers("siglip")[1]), RunConfig(inputs=(), labels=("包", "鞋")))


@pytest.mark.families
def test_labels_may_stand_in_a_config_file_and_are_part_of_the_job(
    towers: Callable[[str], tuple[Path, Path]], pictures: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "job.toml"
    words = ["run", pictures, "-m", towers("clip")[1], "--limit", 5, "-o", tmp_path / "out"]
    settings.write_text(f"labels = {json.dumps(LABELS)}")
    done = run_tfbatch(*words, "--config", settings)
    assert done.code == 0, done.err
    assert run_tfbatch(*words, "--labels", SPOKEN).result["status"] == "already done"
    for other in (["--labels", "bag,shirt"], ["--labels", SPOKEN, "--label-template", "{}"]):
        refused = run_tfbatch(*words, *other)
        assert refused.code == BadConfiguration.exit_code
        assert other[-2] in refused.err


def test_label_embeddings_are_made_once_and_do_not_depend_on_the_other_labels(
    towers: Callable[[str], tuple[Path, Path]],
) -> None:
    for name in ("clip", "siglip"):
        bundle = load_bundle(towers(name)[1])
        many = Labels(bundle, RunConfig(inputs=(), labels=tuple(f"bag {number}" for number in ["", *LABELS])))
        alone = Labels(bundle, RunConfig(inputs=(), labels=("bag sandal",)))
        assert many.embeddings() is many.embeddings()
        np.testing.assert_allclose(many.embeddings()[-1], alone.embeddings()[0], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(many.embeddings(), axis=1), 1, atol=1e-6)


def test_labels_are_for_models_of_any_labels_only(image_bundle: Path, pictures: Path, tmp_path: Path) -> None:
    done = run_tfbatch("run", pictures, "-m", image_bundle, "-o", tmp_path / "out", "--labels", "a,b")
    assert done.code == UsageError.exit_code
    assert "--labels: not for image-classification" in done.err


def test_a_text_graph_that_was_changed_is_refused(towers: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    """By its hash, and by verify where the hash was changed too."""
    copy = copy_bundle(towers("clip")[1], tmp_path / "copy")
    assert verify(copy, None)[1]
    graph = onnx_ir.load(copy / "model_text.onnx")
    change_one_weight(graph)
    onnx_ir.save(graph, copy / "model_text.onnx")
    labels = Labels(load_bundle(copy), RunConfig(inputs=(), labels=("bag",)))
    with pytest.raises(BadConfiguration, match=r"model_text\.onnx is not the file that was verified"):
        labels.embeddings()
    manifest = json.loads((copy / "tfbatch.json").read_text())
    manifest["files"]["model_text.onnx"] = sha256(copy / "model_text.onnx")
    (copy / "tfbatch.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportNotVerified, match="differs from PyTorch"):
        verify(copy, None)


def test_bundles_of_before_there_were_side_graphs_are_read(text_bundle: Path, tmp_path: Path) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    manifest = json.loads((copy / "tfbatch.json").read_text())
    assert manifest.pop("side_graphs") == {}
    (copy / "tfbatch.json").write_text(json.dumps(manifest))
    bundle = load_bundle(copy)
    assert bundle.manifest.side_graphs == {}
    with pytest.raises(BadConfiguration, match="has no graph `text` beside its main one"):
        bundle.side_graph("text")


@pytest.mark.families
def test_texts_whose_order_was_lost_are_refused(
    towers: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_family, "look_back_only", lambda graph: None)
    with pytest.raises(ExportNotVerified, match="differs from PyTorch"):
        export(ExportConfig(model=str(towers("clip")[0]), output=tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.families
def test_a_clip_whose_configuration_names_another_end_of_text_is_pooled_as_the_hub_does(
    towers: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """Its first checkpoints have 2 there, and the model takes the largest token."""
    checkpoint = copy_bundle(towers("clip")[0], tmp_path / "first")
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (checkpoint / "config.json").write_text(json.dumps(config))
    labels = RunConfig(inputs=(), labels=tuple(LABELS))
    found, expected = (
        Labels(load_bundle(bundle), labels).embeddings() for bundle in (export_once(checkpoint), towers("clip")[1])
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_processor_that_was_saved_within_a_processor_is_found(tmp_path: Path) -> None:
    from transformers import CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])
    processor.save_pretrained(tmp_path / "alone")
    CLIPProcessor(image_processor=processor, tokenizer=clip_tokenizer()).save_pretrained(tmp_path / "within")
    assert not (tmp_path / "within" / "preprocessor_config.json").exists()
    assert read_preprocessor(tmp_path / "within") == read_preprocessor(tmp_path / "alone")


def test_a_siglip_of_fewer_positions_pads_its_texts_to_these(tmp_path: Path) -> None:
    text = TOWER | {"vocab_size": 50, "max_position_embeddings": 16, "projection_size": 32, "num_hidden_layers": 1}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION | {"num_hidden_layers": 1})).eval()
    family = load_family("siglip", "feature-extraction")
    graph, _ = build_graph(family, model)
    onnx_ir.save(graph, tmp_path / "model.onnx")
    samples = compute_references(family, model, family.parity_batches(model.config), {})
    parity = measure_way(tmp_path / "model.onnx", samples, find_device("cpu"), "fp32")
    assert max(record["max_abs_difference"] for record in parity) <= 1e-4


@pytest.mark.families
def test_what_a_siglip_would_be_exported_wrongly_for_is_refused(
    towers: Callable[[str], tuple[Path, Path]], pictures: Path, tmp_path: Path
) -> None:
    checkpoint = copy_bundle(towers("siglip")[0], tmp_path / "masked")
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadConfiguration, match="would mask the padding"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle"))
    with pytest.raises(UsageError, match="--samples is not for zero-shot-image-classification"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle", samples=pictures))


@pytest.mark.families
@pytest.mark.parametrize(
    ("name", "model"), [("clip", lambda: CLIPModel(CLIPConfig())), ("siglip", lambda: SiglipModel(SiglipConfig()))]
)
def test_a_base_model_is_fused_in_both_towers_and_equal_to_torch(
    name: str, model: Callable[[], Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = model().eval()
    with torch.no_grad():
        made.logit_scale.fill_(math.log(100))  # as trained ones have it
    family = load_family(name, TASK)
    for part in (family, *sides_of(family).values()):
        graph, expected = build_graph(part, made)
        counts = count_operators(graph)
        check_fusion(counts, expected)
        assert counts["Attention"] >= 11
        onnx_ir.save(graph, tmp_path / "model.onnx")
        samples = compute_references(part, made, part.parity_batches(made.config), {})
        parity = measure_way(tmp_path / "model.onnx", samples, find_device("cpu"), "fp32")
        assert max(record["max_abs_difference"] for record in parity) < 1e-4


@pytest.mark.families
@pytest.mark.parametrize("task", ["zero-shot-image-classification", "image-feature-extraction", "feature-extraction"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_every_task_of_both_towers_passes_in_half_precision(
    name: str, task: str, towers: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    config = ExportConfig(model=str(towers(name)[0]), output=tmp_path / "bundle", task=task, fp16=True)
    assert export(config).manifest.graphs["fp16"].proofs["cpu fp16 f32"] is True


@pytest.mark.families
@pytest.mark.parametrize("task", ["image-feature-extraction", "feature-extraction"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_each_tower_alone_passes_in_eight_bits(
    name: str, task: str, towers: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    rows = {"image": real_pictures()[:60]} if task.startswith("image") else {"text": LABELS * 10}
    pq.write_table(pa.table(rows), tmp_path / "samples.parquet")
    asked = ExportConfig(
        model=str(towers(name)[0]), output=tmp_path / "bundle", task=task, int8=True,
        samples=tmp_path / "samples.parquet",
    )  # fmt: skip
    assert export(asked).manifest.graphs["int8"].proofs["cpu int8 f32"] is True
