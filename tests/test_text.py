from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import read_output, run_tfbatch
from tfbatch.bundle import load_bundle
from tfbatch.config import RunConfig
from tfbatch.text.model_inputs import TextInput, flat


def test_equal_texts_are_one_input_and_padding_is_masked(text_bundle: Path) -> None:
    source = TextInput(load_bundle(text_bundle), RunConfig(inputs=()))
    work = source.prepare(pa.chunked_array([["good", "bad film"], ["good", None]]))
    assert work.result_of_row.tolist() == [0, 1, 0, -1]
    assert work.lengths.tolist() == [3, 4]
    assert list(work.errors) == [3]
    feeds = work.collate(np.array([1, 0]), 6)
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert feeds["input_ids"].tolist() == [[2, 6, 9, 3, 0, 0], [2, 5, 3, 0, 0, 0]]
    assert feeds["input_ids"].dtype == np.int64


def test_equal_pairs_are_one_input_and_a_null_on_either_side_is_an_error(text_bundle: Path) -> None:
    source = TextInput(load_bundle(text_bundle), RunConfig(inputs=()))
    firsts, seconds = ["good", "good", None, "bad", "good"], ["film", "book", "film", None, "film"]
    work = source.prepare(pa.chunked_array([firsts]), pa.chunked_array([seconds]))
    assert work.result_of_row.tolist() == [0, 1, -1, -1, 0]
    assert sorted(work.errors) == [2, 3]
    feeds = work.collate(np.array([0]), 5)
    assert feeds["input_ids"].tolist() == [[2, 5, 3, 9, 3]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]


def test_rows_that_were_cut_are_counted(text_bundle: Path) -> None:
    source = TextInput(load_bundle(text_bundle), RunConfig(inputs=(), max_length=8))
    work = source.prepare(pa.chunked_array([["good", "good " * 20, None, "good " * 20]]))
    assert work.truncated == 2


def test_pairs_are_scored_as_the_hubs_pipeline_scores_them(
    text_checkpoint: Path, text_bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    table = pq.read_table(reviews).slice(0, 200)
    table = table.append_column("answer", table.column("text").take(np.arange(200)[::-1]))
    pq.write_table(table, tmp_path / "pairs.parquet")
    words = ["--input-column", "text", "--text-pair-column", "answer", "-o", tmp_path / "out"]
    done = run_tfbatch("run", tmp_path / "pairs.parquet", "-m", text_bundle, *words)
    assert done.code == 0, done.err
    output = read_output(tmp_path / "out")
    pairs = zip(*(table.column(name).to_pylist() for name in ("text", "answer")), strict=True)
    classify = pipeline("text-classification", model=str(text_checkpoint), truncation=True, max_length=64)
    expected = [classify({"text": text, "text_pair": pair}) for text, pair in pairs]
    assert output.column("predicted_label").to_pylist() == [found["label"] for found in expected]
    np.testing.assert_allclose(output.column("predicted_score"), [found["score"] for found in expected], atol=1e-4)
    assert done.result["truncated_rows"] > 0


def test_windows_give_the_mean_of_their_logits_by_tokens(
    text_checkpoint: Path, text_bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words = ["--overflow", "stride", "--stride", 4, "--max-length", 16, "--all-scores", "-o", tmp_path / "out"]
    done = run_tfbatch("run", reviews, "--limit", 100, "-m", text_bundle, *words)
    assert done.code == 0, done.err
    assert done.result["truncated_rows"] == 0
    model = AutoModelForSequenceClassification.from_pretrained(text_checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(text_checkpoint)
    output = read_output(tmp_path / "out").to_pylist()
    assert any(len(tokenizer(row["text"])["input_ids"]) > 40 for row in output)
    for row in output:
        found = tokenizer(
            row["text"], truncation=True, max_length=16, stride=4, return_overflowing_tokens=True,
            padding=True, return_tensors="pt",
        )  # fmt: skip
        found.pop("overflow_to_sample_mapping")
        with torch.inference_mode():
            logits = model(**found).logits
        weights = (found["attention_mask"].sum(1) - 2).float()
        scores = torch.softmax((logits * weights[:, None]).sum(0) / weights.sum(), 0)
        assert row["predicted_label"] == model.config.id2label[int(scores.argmax())]
        assert abs(row["predicted_score"] - float(scores.max())) < 1e-5


def test_windows_of_pairs_and_a_column_as_its_own_pair_are_refused(text_bundle: Path, reviews: Path) -> None:
    pair = ["--text-pair-column", "text"]
    done = run_tfbatch("run", reviews, "-m", text_bundle, *pair, "--overflow", "stride")
    assert (done.code, "for single texts" in done.err) == (2, True)
    for words, reason in (
        (["--stride", 4], "--stride is for --overflow stride"),
        (["--overflow", "stride", "--stride", 500], "has place for 62"),
        (["--overflow", "stride", "--stride", 500, "--dry-run"], "has place for 62"),
        (["--max-length", 4, "--text-pair-column", "more"], "a pair of texts takes 5 tokens"),
    ):
        table = pq.read_table(reviews)
        pq.write_table(table.append_column("more", table.column("text")), reviews)
        done = run_tfbatch("run", reviews, "-m", text_bundle, "--input-column", "text", *words)
        assert (done.code, reason in done.err) == (2, True), done.err
        pq.write_table(table, reviews)
    done = run_tfbatch("run", reviews, "-m", text_bundle, *pair, "--input-column", "text")
    assert (done.code, "--text-pair-column text is the input column too" in done.err) == (2, True)
    done = run_tfbatch("run", reviews, "-m", text_bundle, "--text-pair-column", "id")
    assert (done.code, "column id is int64, which is no text" in done.err) == (2, True)


def test_tokens_wait_in_four_bytes_whatever_they_come_in() -> None:
    tokens = flat([np.array([101, 7], np.int32), np.array([102], np.int64), np.zeros(0, np.int64)])
    assert (tokens.dtype, tokens.tolist()) == (np.int32, [101, 7, 102])
    assert flat([]).tolist() == []
