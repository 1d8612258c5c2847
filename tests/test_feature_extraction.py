"""Embeddings are those that PyTorch makes of each text alone, pooled by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, export_once, run_tfbatch
from embedders import STEPS, TEXTS, by_hand, compare, make_embedder, run, say_how
from real_rows import MADE, real_texts
from tfbatch.batches import Window
from tfbatch.bundle import load_bundle
from tfbatch.bundles.pooling import Pooling, read_length, read_pooling
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.job import make_job
from tfbatch.scoring import Scoring
from tfbatch_export.checkpoint import find_checkpoint, infer_task
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from tfbatch_export.verify import verify

LENGTH = 16


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_embeddings_are_pooled_as_the_checkpoint_says(mode: str, normalised: bool, tmp_path: Path) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    switches = {"word_embedding_dimension": 32, "pooling_mode_cls_token": mode == "cls",
                "pooling_mode_mean_tokens": mode == "mean", "pooling_mode_max_tokens": False}  # fmt: skip
    length = {"max_seq_length": LENGTH, "do_lower_case": False}
    say_how(checkpoint, STEPS if normalised else STEPS[:2], switches, sentence_bert_config=length)
    bundle = export_once(checkpoint)
    manifest = load_bundle(bundle).manifest
    assert manifest.task == "feature-extraction"
    assert (manifest.settings["pooling"], manifest.settings["normalised"]) == (mode, normalised)
    pooling = Pooling(mode=mode, normalised=normalised)
    compare(run(bundle, TEXTS, tmp_path), by_hand(checkpoint, TEXTS, pooling, LENGTH))


def test_without_files_of_sentence_transformers_it_is_the_mean_as_it_comes(tmp_path: Path) -> None:
    """And the Hub's own pooler, which is not used, need not have been trained."""
    checkpoint = make_embedder(tmp_path / "bert", pooler=False)
    assert infer_task(find_checkpoint(str(checkpoint), None)) == "feature-extraction"
    bundle = export_once(checkpoint)
    compare(run(bundle, TEXTS, tmp_path), by_hand(checkpoint, TEXTS, Pooling(), 64))
    assert verify(bundle, None)[1]


def test_every_layer_is_fused_and_padded_batches_are_compared_too(tmp_path: Path) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    say_how(checkpoint, STEPS, {"pooling_mode_mean_tokens": True})
    graph = load_bundle(export_once(checkpoint)).manifest.graphs["fp32"]
    fused = {"Attention": 0, "BiasGelu": 2, "LayerNormalization": 5, "MultiHeadAttention": 2, "Softmax": 0}
    assert graph.fused == fused
    assert {record["batch"] for record in graph.parity} >= {"7 x 17", "7 x 17, padded"}


def test_a_graph_names_its_inputs_as_the_hub_does_and_gives_the_states_beside_the_embedding(tmp_path: Path) -> None:
    import onnxruntime

    bundle = export_once(make_embedder(tmp_path / "bert"))
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [(node.name, node.shape) for node in session.get_outputs()] == [
        ("embedding", ["batch", 32]),
        ("last_hidden_state", ["batch", "sequence", 32]),
    ]


def test_the_first_dimensions_are_of_length_one_again_and_may_be_halves(tmp_path: Path) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    say_how(checkpoint, STEPS, {"pooling_mode_mean_tokens": True})
    bundle = export_once(checkpoint)
    whole = by_hand(checkpoint, TEXTS, Pooling(), 64)
    first = [None if found is None else found[:8] / np.linalg.norm(found[:8]) for found in whole]
    compare(run(bundle, TEXTS, tmp_path, "--dimensions", 8), first)
    halves = run(bundle, TEXTS, tmp_path, "--embedding-type", "float16", "--overwrite")
    assert halves.schema.field("embedding").type == pa.list_(pa.float16(), 32)
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", bundle, "--dimensions", 33)
    assert (done.code, "embeddings of this model have 32" in done.err) == (2, True)


@pytest.mark.parametrize("overflow", ["truncate", "stride"])
def test_an_embedding_too_large_for_halves_is_its_rows_error(overflow: str, tmp_path: Path) -> None:
    bundle = export_once(make_embedder(tmp_path / "bert"))
    table = pa.table({"text": ["good", "bad", None, "dull", "bad"]})
    pq.write_table(table, tmp_path / "in.parquet")
    config = RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=bundle, overflow=overflow)
    outputs = np.ones((3, 32), np.float32)
    outputs[1, 3] = -70_000
    for changes, is_null in (
        ({"embedding_type": "float16"}, [False, True, True, False, True]),
        ({"embedding_type": "float16", "dimensions": 3}, [False, False, True, False, False]),
        ({}, [False, False, True, False, False]),
    ):
        job = make_job(replace(config, **changes))
        window = Window(part=job.plan.parts[0], first=0, rows=table)
        work = job.task.prepare(window)
        work.receive(np.arange(3), outputs)
        done = Scoring(window, work).finish(job.task, job.schema, job.kept, keeps_results=False)
        assert done.table["embedding"].is_null().to_pylist() == is_null
        codes = [error and error.split(":")[0] for error in done.table["error"].to_pylist()]
        assert codes == [None, *(["not_finite"] if is_null[1] else [None]), "null", None, codes[1]]
        assert len(done.errors) == sum(is_null)


def test_no_rows_and_no_good_rows_are_outputs_too(tmp_path: Path) -> None:
    bundle = export_once(make_embedder(tmp_path / "bert"))
    assert len(run(bundle, [], tmp_path)) == 0
    assert run(bundle, [None, None], tmp_path, "--overwrite")["embedding"].null_count == 2


def test_a_mode_is_named_or_switched_on_whatever_else_is_said_of_pooling(tmp_path: Path) -> None:
    switches = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    for mode in ({"pooling_mode": "cls"}, switches):
        say_how(tmp_path, STEPS[:2], {"embedding_dimension": 32, "include_prompt": True, **mode})
        assert read_pooling(tmp_path) == Pooling(mode="cls")


@pytest.mark.parametrize("content", ["[]", "{}", "[3]", '[{"idx": 0}]', '{"a": 1}'])
def test_steps_that_are_none_are_told_of(content: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(BadConfiguration, match="no list of steps"):
        read_pooling(tmp_path)


@pytest.mark.parametrize("length", ["32", 2, 7.5, True])
def test_a_length_that_is_none_is_told_of(length: object, tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    with pytest.raises(BadConfiguration, match="max_seq_length is .* no number of tokens"):
        read_length(tmp_path)


MEAN = {"pooling_mode_mean_tokens": True}


def test_a_repositorys_own_step_is_not_taken_for_one_of_the_librarys(tmp_path: Path) -> None:
    say_how(tmp_path, STEPS[:2], MEAN)
    modules = (tmp_path / "modules.json").read_text()
    (tmp_path / "modules.json").write_text(modules.replace("sentence_transformers.models.Pooling", "own.Pooling"))
    with pytest.raises(BadConfiguration, match=r"own\.Pooling, which is not sentence-transformers' own"):
        read_pooling(tmp_path)


def test_a_prompt_of_no_words_and_settings_that_change_no_number_are_fine(tmp_path: Path) -> None:
    told = {"default_prompt_name": "passage", "prompts": {"passage": "", "query": "find: "}}
    say_how(tmp_path, STEPS[:2], MEAN, config_sentence_transformers=told)
    assert read_pooling(tmp_path) == Pooling()
    settings = {"max_seq_length": 32, "config_args": {"trust_remote_code": True}, "tokenizer_args": {}}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    assert read_length(tmp_path) == 32


def test_a_length_of_the_embedder_takes_the_place_of_its_tokenizers(tmp_path: Path) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    tokenizer = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 16}))
    say_how(checkpoint, STEPS[:2], MEAN, sentence_bert_config={"max_seq_length": 48})
    bundle = export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle"))
    assert bundle.setting("max_length") == 48


@pytest.mark.parametrize(
    ("steps", "pooling", "more", "reason"),
    [
        (["Transformer", "Pooling", "Dense"], MEAN, {}, "modules.json has Transformer, Pooling, Dense;"),
        (["Transformer"], MEAN, {}, "modules.json has Transformer;"),
        (STEPS, {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, {}, "pools by max_tokens;"),
        (STEPS, MEAN | {"pooling_mode_cls_token": True}, {}, "pools by mean and cls;"),
        (STEPS, {"pooling_mode": "lasttoken"}, {}, "pools by lasttoken; what is known is cls or mean"),
        (STEPS, {"pooling_mode": 3}, {}, "pools by 3;"),
        (STEPS, {"pooling_mode": ["cls", 3]}, {}, "pools by cls and 3;"),
        (STEPS, MEAN, {"config_sentence_transformers": {"default_prompt_name": "query"}}, "the prompt query"),
        (STEPS, MEAN, {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case"),
        (STEPS, MEAN, {"sentence_roberta_config": {"do_lower_case": True}}, "do_lower_case"),
        (
            STEPS,
            MEAN,
            {"sentence_bert_config": {"processing_kwargs": {"text": {"max_length": 8}}}},
            "processing_kwargs",
        ),
        (STEPS, MEAN, {"sentence_bert_config": {"tokenizer_args": {"model_max_length": 16}}}, "tokenizer_args"),
        (STEPS, MEAN, {"sentence_bert_config": {"config_args": {"num_hidden_layers": 1}}}, "config_args"),
    ],
)
def test_what_would_be_missing_in_the_graph_is_refused(
    steps: list[str], pooling: dict[str, Any], more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    checkpoint = make_embedder(tmp_path / "bert")
    say_how(checkpoint, steps, pooling, **more)
    with pytest.raises(BadConfiguration, match=reason):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_there_is_no_default_model(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "in.parquet")
    refused = run_tfbatch("run", tmp_path / "in.parquet", "--task", "feature-extraction", "-o", tmp_path / "out")
    assert refused.code == UsageError.exit_code
    assert "feature-extraction has no default model: name a bundle with -m BUNDLE" in refused.err


def test_a_real_model_gives_the_normalised_mean_of_real_texts(tmp_path: Path) -> None:
    bundle, checkpoint = ROOT / "models" / "minilm", ROOT / "build" / "checkpoints" / "minilm"
    assert bundle.is_dir(), MADE
    texts = real_texts()[:300]
    expected = by_hand(checkpoint, texts, Pooling(normalised=True), 256)
    compare(run(bundle, texts, tmp_path), expected)
