"""Answers are those of the published algorithm by hand, and those in long texts lie where they say."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SPECIAL, WORDS, export_once, read_output, run_tfbatch
from real_rows import MADE, REVIEWS, SENTIMENT
from text_checkpoints import empty_layers
from text_comparisons import ByHand
from tfbatch.batches import Window
from tfbatch.bundle import load_bundle
from tfbatch.config import RunConfig
from tfbatch.plan import Part
from tfbatch.tasks import load_task
from tfbatch_export.checkpoint import find_checkpoint, infer_task
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertTokenizer,
)

LENGTH = 128
ROWS = 200


@pytest.fixture(scope="module")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, with a real vocabulary, random weights and 128 tokens."""
    assert SENTIMENT.is_dir(), MADE
    folder = tmp_path_factory.mktemp("answers") / "random"
    tokenizer = AutoTokenizer.from_pretrained(SENTIMENT)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=LENGTH, initializer_range=0.4,
    )  # fmt: skip
    BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.model_max_length = LENGTH
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def random_bundle(random_checkpoint: Path) -> Path:
    return export_once(random_checkpoint)


@pytest.fixture(scope="module")
def finder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose layers add nothing: an answer starts at `book` and ends at `film`, and where there is
    neither, at the first token, it holds that there is none."""
    folder = tmp_path_factory.mktemp("answers") / "finder"
    known = SPECIAL + WORDS
    config = BertConfig(
        vocab_size=len(known), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertForQuestionAnswering(config)
    empty_layers(model)
    with torch.no_grad():
        for output, word in enumerate(("book", "film")):
            model.qa_outputs.weight[output, known.index(word)] = 4
            model.qa_outputs.weight[output, known.index("[CLS]")] = 2
    model.save_pretrained(folder)
    BertTokenizer(vocab={token: index for index, token in enumerate(known)}, model_max_length=64).save_pretrained(
        folder
    )
    return export_once(folder)


def run(bundle: Path, table: dict[str, Any], folder: Path, *words: object) -> list[dict[str, Any]]:
    pq.write_table(pa.table(table), folder / "in.parquet")
    asked = ["--input-column", "context", *words, "--overwrite"]
    done = run_tfbatch("run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", *asked)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = read_output(folder / "out").to_pylist()
    return rows


@pytest.mark.parametrize("longest", [15, 2])
def test_answers_are_those_of_the_published_algorithm(
    longest: int, random_checkpoint: Path, random_bundle: Path, tmp_path: Path
) -> None:
    texts = [text for text in pq.read_table(REVIEWS)["text"].to_pylist() if text.strip()][: 3 * ROWS]
    contexts = [" ".join(texts[index : index + 1 + index % 10]) for index in range(ROWS)]
    contexts[:4] = ["naïve cafe\u0301 电影很好 🎬 film", "👍🏽👍🏽 great", "film", "e\u0301" * 300]
    questions = [" ".join(text.split()[:8]) for text in texts[-ROWS:]]
    words = ["--handle-impossible", "--max-answer-length", longest, "--stride", LENGTH // 2]
    rows = run(random_bundle, {"context": contexts, "question": questions}, tmp_path, *words)
    by_hand, none_count, several_windows = ByHand(random_checkpoint, LENGTH), 0, 0
    for row in rows:
        expected, none = by_hand.answer(row["question"], row["context"], longest)
        assert row["error"] is None
        if none > expected["score"]:
            none_count += 1
            assert row["answer"] is row["answer_start"] is row["answer_end"] is None
            assert row["answer_score"] == pytest.approx(none, abs=1e-4)
            continue
        assert row["answer_score"] == pytest.approx(expected["score"], abs=1e-4)
        assert (row["answer_start"], row["answer_end"]) == (expected["start"], expected["end"])
        assert row["answer"] == row["context"][row["answer_start"] : row["answer_end"]]
        several_windows += len(by_hand.tokenizer(row["question"], row["context"]).input_ids) > LENGTH
    assert 0 < none_count < ROWS / 2
    assert several_windows > ROWS / 4


def test_an_answer_in_five_thousand_words_lies_where_it_says(finder_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    filler = random.choice(["good", "bad", "the", "was", "naïve", "电影", "🎬", "e\u0301"], 5000).tolist()
    answer = "book was a film"
    contexts = [" ".join([*filler[:place], answer, *filler[place + 1 :]]) for place in (0, 23, 2500, 4999)]
    rows = run(finder_bundle, {"context": contexts, "question": ["the plot", "the", "was not", "is"]}, tmp_path)
    for row in rows:
        start = row["context"].index(answer)
        assert (row["answer"], row["answer_start"], row["answer_end"]) == (answer, start, start + len(answer))
        assert row["answer_score"] > 0.9


def test_there_may_be_no_answer_where_that_is_asked_for(finder_bundle: Path, tmp_path: Path) -> None:
    table = {"context": ["good " * 200, "a book was a film"], "question": ["the plot", "the plot"]}
    none, answer = run(finder_bundle, table, tmp_path, "--handle-impossible")
    assert (none["answer"], none["answer_start"], none["answer_end"], none["error"]) == (None, None, None, None)
    assert none["answer_score"] > 0.9
    assert answer["answer"] == "book was a film"
    assert [row["answer"] is None for row in run(finder_bundle, table, tmp_path)] == [False, False]


def test_an_answer_is_whole_words_and_no_longer_than_asked(finder_bundle: Path, tmp_path: Path) -> None:
    table = {"context": ["the books films", "a book was a film"], "question": ["the", "the"]}
    assert [row["answer"] for row in run(finder_bundle, table, tmp_path)] == ["books films", "book was a film"]
    assert run(finder_bundle, table, tmp_path, "--max-answer-length", 3)[1]["answer"] != "book was a film"


def test_what_cannot_be_asked_is_its_rows_error_alone(finder_bundle: Path, tmp_path: Path) -> None:
    invalid = pa.array([b"a book", b"\xff"], pa.binary()).view(pa.string())
    contexts = pa.chunked_array([invalid, pa.array([None, " ", *["a book was a film"] * 6])])
    questions = ["the", "the", "the", "the", None, "", "good " * 45, "good " * 10_000, "good " * 46, "the"]
    rows = run(finder_bundle, {"context": contexts, "question": questions}, tmp_path, "--keep-columns", "none")
    reasons = [row["error"] and row["error"].split(":")[0] for row in rows]
    long = "long_question"
    assert reasons == [None, "invalid_utf8", "null", "empty", "null", "empty", None, long, long, None]
    assert [row["answer"] is None for row in rows] == [reason is not None for reason in reasons]
    assert rows[6]["answer"] == rows[9]["answer"] == "book was a film"


def test_equal_pairs_are_read_once(finder_bundle: Path) -> None:
    table = pa.table({"context": ["a book", "a book", "a film", "a book"], "question": ["the", "was", "the", "the"]})
    task = load_task("question-answering")(load_bundle(finder_bundle), RunConfig(inputs=()), "context")
    part = Part(file=0, first=0, stop=4, folder=PurePath(), identity="")
    work = task.prepare(Window(part=part, first=0, rows=table))
    assert len(work.results) == 3
    assert work.result_of_row[0] == work.result_of_row[3] != work.result_of_row[1]
    feeds = work.collate(np.array([0]), 8)
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]


def test_what_does_not_fit_is_refused(finder_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"context": ["good"], "asked": ["the"]}), tmp_path / "in.parquet")
    named = ["--input-column", "context", "--question-column", "asked"]
    for words, reason in (
        ([], "there is no column question, which --question-column names; the input has: context"),
        (["--question-column", "context", "--input-column", "context"], "is the input column too"),
        ([*named, "--stride", 61], "has place for 61"),
        ([*named, "--top-k", 2], "--top-k: not for question-answering"),
    ):
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", finder_bundle, *words)
        assert (done.code, reason in done.err) == (2, True), done.err


def test_starts_and_ends_are_one_output_that_is_compared_on_real_rows(random_checkpoint: Path, tmp_path: Path) -> None:
    assert infer_task(find_checkpoint(str(random_checkpoint), None)) == "question-answering"
    texts = [text for text in pq.read_table(REVIEWS)["text"].to_pylist()[:20] if text]
    pq.write_table(pa.table({"context": texts, "question": texts[::-1]}), tmp_path / "in.parquet")
    bundle = export(
        ExportConfig(
            model=str(random_checkpoint), output=tmp_path / "bundle", samples=tmp_path / "in.parquet",
            samples_column="context",
        )
    )  # fmt: skip
    manifest = bundle.manifest
    parity = manifest.graphs["fp32"].parity
    assert manifest.labels == []
    assert any(record["is_real"] for record in parity)
    assert max(record["max_abs_difference"] for record in parity if record["precision"] == "fp32") <= 1e-4
    assert not any("label_agreement" in record for record in parity)
