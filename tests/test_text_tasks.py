"""Tasks of text that are small: each against the Hub's own pipeline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SPECIAL, WORDS, read_output, run_tfbatch
from tfbatch.batches import Window
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, ExportNotVerified, UsageError
from tfbatch.job import make_job
from tfbatch.session import Device, Session
from tfbatch_export import parity
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export

LABELS = ["good", "bad, very bad", "film"]


@pytest.fixture(scope="module")
def model(text_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Makes a BERT of 2 layers with the head of a class, and its bundle for a task."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("heads")

    def make(task: str, model_class: str, **more: Any) -> tuple[Path, Path]:
        torch.manual_seed(3)
        config = transformers.BertConfig(
            vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, initializer_range=0.6, **more,
        )  # fmt: skip
        checkpoint = root / task
        getattr(transformers, model_class)(config).save_pretrained(checkpoint)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (checkpoint / name).write_bytes((text_checkpoint / name).read_bytes())
        config_of_export = ExportConfig(model=str(checkpoint), output=root / f"{task}-bundle", task=task)
        return checkpoint, export(config_of_export).path

    return make


@pytest.fixture(scope="module")
def entailment(model: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    return model(
        "zero-shot-classification", "BertForSequenceClassification", id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )  # fmt: skip


def texts_of(reviews: Path, count: int) -> list[str]:
    texts: list[str] = pq.read_table(reviews).column("text").to_pylist()
    return texts[:count]


@pytest.mark.parametrize("options", [[], ["--multi-label"], ["--label-template", "the {} is not very good ."]])
def test_labels_said_at_run_are_scored_as_by_the_hubs_pipeline(
    options: list[str], entailment: tuple[Path, Path], reviews: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    checkpoint, bundle = entailment
    words = ["--labels", 'good,"bad, very bad",film', *options, "--all-scores", "--limit", 200, "-o", tmp_path / "out"]
    done = run_tfbatch("run", reviews, "-m", bundle, *words)
    assert done.code == 0, done.err
    template = options[1] if len(options) > 1 else "This example is {}."
    classify = pipeline("zero-shot-classification", model=str(checkpoint))
    found = classify(
        texts_of(reviews, 200), LABELS, multi_label=options == ["--multi-label"], hypothesis_template=template
    )
    for row, expected in zip(read_output(tmp_path / "out").to_pylist(), found, strict=True):
        assert [scored["label"] for scored in row["predicted_scores"]] == expected["labels"]
        scores = [scored["score"] for scored in row["predicted_scores"]]
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)


@pytest.mark.parametrize("task", ["zero-shot-classification", "token-classification", "question-answering"])
def test_what_is_made_of_a_text_weighs_and_what_is_carried_along_weighs_once(
    task: str, model: Callable[..., tuple[Path, Path]], entailment: tuple[Path, Path], tmp_path: Path
) -> None:
    kinds = {"token-classification": "BertForTokenClassification", "question-answering": "BertForQuestionAnswering"}
    bundle = model(task, kinds[task])[1] if task in kinds else entailment[1]
    own: dict[str, Any] = {
        "zero-shot-classification": {"labels": tuple(LABELS)},
        "question-answering": {"question_column": "question"},
    }.get(task, {})
    texts = pa.array(["good film " * 10] * 100)
    plain = pa.table({"text": texts, "question": ["good ?"] * 100})
    wide = plain.append_column("page", pa.array(["x" * 10_000] * 100))
    pq.write_table(wide, tmp_path / "in.parquet")
    job = make_job(RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=bundle, input_column="text", **own))

    def weight(table: pa.Table) -> int:
        return int(job.task.weigh(Window(part=job.plan.parts[0], first=0, rows=table)).sum())

    assert weight(plain) > 3 * plain.nbytes
    assert weight(wide) - weight(plain) == pytest.approx(wide.nbytes - plain.nbytes, rel=0.01)
    if task == "zero-shot-classification":
        assert weight(plain.set_column(0, "text", texts.dictionary_encode())) < weight(plain) / 4


def test_labels_that_cannot_be_are_refused(entailment: tuple[Path, Path], reviews: Path) -> None:
    for words, reason in (
        ([], "say which, as in --labels"),
        (["--labels", "a,a"], "--labels has a more than once"),
        (["--labels", "a,,b"], "an empty label"),
        (["--labels", "a", "--label-template", "nothing"], "has no {}"),
        (["--labels", "good,film", "--label-template", "a good film"], "has no {}"),
        (["--labels", "good " * 80], "takes all of the 64 tokens"),
        (["--labels", "a,b", "--threshold", "nan"], "--threshold nan is no finite number"),
    ):
        done = run_tfbatch("run", reviews, "-m", entailment[1], *words)
        assert (done.code, reason in done.err) == (2, True), done.err


def test_a_model_without_entailment_is_refused(text_bundle: Path, reviews: Path, tmp_path: Path) -> None:
    import json
    import shutil

    copy = shutil.copytree(text_bundle, tmp_path / "copy")
    manifest = json.loads((copy / "tfbatch.json").read_text()) | {"task": "zero-shot-classification"}
    (copy / "tfbatch.json").write_text(json.dumps(manifest))
    done = run_tfbatch("run", reviews, "-m", copy, "--labels", "a,b")
    assert (done.code, "none is entailment" in done.err) == (78, True)


def test_a_model_without_entailment_is_refused_at_export_too(text_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(model=str(text_checkpoint), output=tmp_path / "b", task="zero-shot-classification")
    with pytest.raises(BadConfiguration, match="none is entailment"):
        export(config)


def test_pairs_are_refused_where_the_model_knows_one_type_of_tokens(
    model: Callable[..., tuple[Path, Path]], reviews: Path, tmp_path: Path
) -> None:
    _, bundle = model("text-classification", "BertForSequenceClassification", type_vocab_size=1)
    pq.write_table(pa.table({"text": ["good"], "other": ["bad"]}), tmp_path / "in.parquet")
    words = ["-m", bundle, "--input-column", "text", "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "in.parquet", *words, "--text-pair-column", "other")
    assert (done.code, "the model knows one (type_vocab_size)" in done.err) == (78, True), done.err
    assert not (tmp_path / "out").exists()
    assert run_tfbatch("run", tmp_path / "in.parquet", *words).code == 0


def test_real_rows_are_compared_where_labels_or_pairs_must_be_told(
    entailment: tuple[Path, Path], reviews: Path, tmp_path: Path
) -> None:
    told = {"samples": reviews, "samples_labels": ("good", "bad")}
    config = ExportConfig(
        model=str(entailment[0]), output=tmp_path / "bundle", task="zero-shot-classification", **told
    )  # fmt: skip
    assert any(record["is_real"] for record in export(config).manifest.graphs["fp32"].parity)
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), tmp_path / "nulls.parquet")
    config = ExportConfig(
        model=str(entailment[0]), output=tmp_path / "b", task="text-classification", samples=tmp_path / "nulls.parquet"
    )
    with pytest.raises(UsageError, match="none of the first 64 rows can be scored; null"):
        export(config)


def test_similarity_is_the_sigmoid_of_one_logit(
    model: Callable[..., tuple[Path, Path]], reviews: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    checkpoint, bundle = model("sentence-similarity", "BertForSequenceClassification", num_labels=1)
    texts = texts_of(reviews, 200)
    pq.write_table(pa.table({"query": texts, "passage": texts[::-1]}), tmp_path / "pairs.parquet")
    words = ["--input-column", "query", "--text-pair-column", "passage", "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "pairs.parquet", "-m", bundle, *words)
    assert done.code == 0, done.err
    score = pipeline("text-classification", model=str(checkpoint), truncation=True, max_length=64)
    expected = [score({"text": one, "text_pair": two})["score"] for one, two in zip(texts, texts[::-1], strict=True)]
    np.testing.assert_allclose(read_output(tmp_path / "out").column("similarity"), expected, atol=1e-4)
    done = run_tfbatch("run", tmp_path / "pairs.parquet", "-m", bundle, "--input-column", "query")
    assert (done.code, "name the second with --text-pair-column" in done.err) == (2, True)


def make_scorer(folder: Path, text_checkpoint: Path, **told: Any) -> Path:
    """A checkpoint of one number for two texts, whose configuration says more."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(text_checkpoint, num_labels=1)
    vars(config).update(told)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((text_checkpoint / name).read_bytes())
    return folder


def test_a_similarity_that_is_far_off_in_half_precision_is_refused(
    text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth less of each number is no other direction and no other label."""
    whole = parity.open_session

    def open_tampered(graph: Path, device: Device, precision: str, threads: int) -> Session:
        session = whole(graph, device, precision, threads)
        if precision == "fp16":
            run = session.run
            monkeypatch.setattr(session, "run", lambda feeds: 0.95 * run(feeds))
        return session

    monkeypatch.setattr(parity, "open_session", open_tampered)
    checkpoint = make_scorer(tmp_path / "checkpoint", text_checkpoint)
    asked = ExportConfig(model=str(checkpoint), output=tmp_path / "b", task="sentence-similarity", fp16=True)
    with pytest.raises(ExportNotVerified, match="fp16 is too far from the checkpoint: .* its cosine"):
        export(asked)


@pytest.mark.parametrize(
    "told",
    [{"sbert_ce_default_activation_function": "mine.Tanh"}, {"sentence_transformers": {"activation_fn": "mine.Tanh"}}],
)
def test_a_similarity_of_another_kind_is_refused(told: dict[str, Any], text_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = make_scorer(tmp_path / "checkpoint", text_checkpoint, **told)
    with pytest.raises(BadConfiguration, match=r"has mine\.Tanh made of the logit"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "b", task="sentence-similarity"))


@pytest.mark.parametrize("name", ["torch.nn.modules.linear.Identity", "torch.nn.Sigmoid"])
def test_what_becomes_of_a_similarity_is_read_from_the_librarys_own_file(
    name: str, text_checkpoint: Path, reviews: Path, tmp_path: Path
) -> None:
    import transformers

    checkpoint = make_scorer(tmp_path / "checkpoint", text_checkpoint, sbert_ce_default_activation_function="mine.Tanh")
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"activation_fn": name}))
    bundle = export(ExportConfig(model=str(checkpoint), output=tmp_path / "b", task="sentence-similarity")).path
    texts = texts_of(reviews, 10)
    pq.write_table(pa.table({"query": texts, "passage": texts[::-1]}), tmp_path / "in.parquet")
    words = ["--input-column", "query", "--text-pair-column", "passage", "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", bundle, *words)
    assert done.code == 0, done.err
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.BertForSequenceClassification.from_pretrained(checkpoint)
    inputs = tokenizer(texts, texts[::-1], truncation=True, max_length=64, padding=True, return_tensors="pt")
    logits = model(**inputs).logits[:, 0].detach().numpy()
    expected = logits if name.endswith("Identity") else 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(read_output(tmp_path / "out").column("similarity"), expected, atol=1e-4)


def test_a_similarity_of_texts_with_a_prompt_is_refused(text_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = make_scorer(tmp_path / "checkpoint", text_checkpoint)
    told = {"default_prompt_name": "query", "prompts": {"query": "find: "}}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(told))
    with pytest.raises(BadConfiguration, match="the prompt query"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "b", task="sentence-similarity"))


def test_masks_are_filled_as_by_the_hubs_pipeline(
    model: Callable[..., tuple[Path, Path]], reviews: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    checkpoint, bundle = model("fill-mask", "BertForMaskedLM")
    random = np.random.default_rng(0)
    texts = []
    for text in texts_of(reviews, 200):
        words = text.split()
        for place in random.integers(0, len(words), random.integers(1, 3)):
            words[place] = "[MASK]"
        texts.append(" ".join(words))
    rows = [*texts, None, "good film", "good " * 80 + "[MASK]"]
    pq.write_table(pa.table({"text": rows}), tmp_path / "in.parquet")
    words = ["--top-k", 3, "--rows-per-part", 90, "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", bundle, *words)
    assert done.code == 0, done.err
    output = read_output(tmp_path / "out").to_pylist()
    fill = pipeline("fill-mask", model=str(checkpoint), top_k=3)
    for row, text in zip(output, texts, strict=False):
        found = fill(text)
        expected = found if isinstance(found[0], list) else [found]
        assert [[one["token"] for one in mask] for mask in row["candidates"]] == [
            [one["token_str"] for one in mask] for mask in expected
        ]
        for ours, theirs in zip(row["candidates"], expected, strict=True):
            np.testing.assert_allclose([one["score"] for one in ours], [one["score"] for one in theirs], atol=1e-4)
        assert row["predicted_tokens"] == [mask[0]["token_str"] for mask in expected]
    assert [row["error"].split(":")[0] for row in output[200:]] == ["null", "no_mask", "no_mask"]
