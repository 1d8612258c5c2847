"""Entities are those of the Hub's pipeline, and those of long texts lie where they say."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SPECIAL, WORDS, export_once, read_output, run_tfbatch
from real_rows import MADE, REVIEWS, SENTIMENT
from text_checkpoints import empty_layers
from tfbatch.bundle import load_bundle
from tfbatch.config import AGGREGATIONS
from tfbatch.text.readings import Reading
from tfbatch.text.tokenizer import Tokenizer
from tfbatch_export.checkpoint import find_checkpoint, infer_task
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BertTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
ODD = [
    "", " ", "🎬", "👍🏽👍🏽 great", "naïve café", "nai\u0308ve cafe\u0301 film", "电影很好", "\u3000film\u200b",
    "[SEP] film", "don't-stop",
]  # fmt: skip


@pytest.fixture(scope="module")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, with a real vocabulary and random weights, which finds entities everywhere."""
    assert SENTIMENT.is_dir(), MADE
    folder = tmp_path_factory.mktemp("tokens") / "random"
    tokenizer = AutoTokenizer.from_pretrained(SENTIMENT)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, id2label=dict(enumerate(LABELS)), initializer_range=0.4,
    )  # fmt: skip
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def random_bundle(random_checkpoint: Path) -> Path:
    return export_once(random_checkpoint)


def make_finder(folder: Path) -> Path:
    """A BERT whose layers add nothing, so that a token's label is its own: `film` begins a THING, `book`
    goes on with it."""
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, id2label={0: "O", 1: "B-THING", 2: "I-THING"},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    empty_layers(model)
    with torch.no_grad():
        for label, word in ((1, "film"), (2, "book")):
            model.classifier.weight[label, (SPECIAL + WORDS).index(word)] = 4
        model.classifier.bias[0] = 4
    model.save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_once(make_finder(tmp_path_factory.mktemp("tokens") / "finder"))


def run(bundle: Path, texts: list[str | None], folder: Path, *words: object) -> list[dict[str, Any]]:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", *words)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = read_output(folder / "out").to_pylist()
    return rows


@pytest.fixture(scope="module")
def byte_pairs_checkpoint(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a vocabulary of byte pairs, which does not mark how words go on."""
    folder = tmp_path_factory.mktemp("tokens") / "byte-pairs"
    BertForTokenClassification.from_pretrained(random_checkpoint).save_pretrained(folder)
    trained = ByteLevelBPETokenizer()
    texts = pq.read_table(REVIEWS)["text"].to_pylist()[:300]
    trained.train_from_iterator(
        texts, vocab_size=800, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    trained._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=128, **special).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def byte_pairs_bundle(byte_pairs_checkpoint: Path) -> Path:
    return export_once(byte_pairs_checkpoint)


@pytest.mark.parametrize(
    ("vocabulary", "aggregation"),
    [
        ("random", "simple"),
        ("byte_pairs", "simple"),
        *(pytest.param("random", name, marks=pytest.mark.families) for name in AGGREGATIONS if name != "simple"),
        pytest.param("byte_pairs", "average", marks=pytest.mark.families),
    ],
)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_hubs_pipeline(
    vocabulary: str, aggregation: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    checkpoint, bundle = (request.getfixturevalue(f"{vocabulary}_{kind}") for kind in ("checkpoint", "bundle"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    reviews = [
        text for text in pq.read_table(REVIEWS)["text"].to_pylist()[:600] if len(tokenizer(text).input_ids) < 128
    ]
    texts = [*ODD, *reviews[:200]]
    assert len(texts) == 200 + len(ODD)
    find = pipeline("token-classification", model=str(checkpoint), aggregation_strategy=aggregation)
    rows = run(bundle, texts, tmp_path, "--aggregation", aggregation)
    name = "entity" if aggregation == "none" else "entity_group"
    for row, text in zip(rows, texts, strict=True):
        expected = find(text)
        assert row["error"] is None
        assert [(one["entity"], one["start"], one["end"]) for one in row["entities"]] == [
            (one[name], one["start"], one["end"]) for one in expected
        ]
        np.testing.assert_allclose(
            [one["score"] for one in row["entities"]], [one["score"] for one in expected], atol=1e-4
        )
        assert all(one["word"] == text[one["start"] : one["end"]] for one in row["entities"])
    assert sum(len(row["entities"]) for row in rows) > 1000


def test_entities_of_a_long_text_lie_where_they_say(finder_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    plain = ["good", "bad", "the", "was", "naïve", "电影", "🎬", "e\u0301", "film book book", "film"]
    long = " ".join(random.choice(plain, 3000, p=[*[0.12] * 8, 0.02, 0.02]))
    rows = run(finder_bundle, ["a film", long, "dull", long], tmp_path, "--stride", 4)
    expected = [match.span() for match in re.finditer(r"film( book)*", long)]
    for row in (rows[1], rows[3]):
        assert [(one["start"], one["end"]) for one in row["entities"]] == expected
        assert {one["entity"] for one in row["entities"]} == {"THING"}
        assert all(one["word"] == long[one["start"] : one["end"]] for one in row["entities"])
    assert len(expected) > 60
    assert [one["word"] for one in rows[0]["entities"]] == ["film"]
    assert rows[2]["entities"] == []


@pytest.mark.parametrize("stride", [0, 5, 40])
def test_a_tokens_label_is_that_of_the_window_in_which_it_is_farthest_from_an_edge(
    stride: int, random_checkpoint: Path, random_bundle: Path, tmp_path: Path
) -> None:
    text = " ".join(pq.read_table(REVIEWS)["text"].to_pylist()[:12])
    tokenizer = AutoTokenizer.from_pretrained(random_checkpoint)
    model = BertForTokenClassification.from_pretrained(random_checkpoint).eval()
    windows = tokenizer(
        text, truncation=True, max_length=64, stride=stride, return_overflowing_tokens=True,
        return_offsets_mapping=True, return_tensors="pt", padding=True,
    )  # fmt: skip
    offsets = windows.pop("offset_mapping").tolist()
    windows.pop("overflow_to_sample_mapping")
    with torch.inference_mode():
        scores = torch.softmax(model(**windows).logits, -1).numpy()
    best: dict[tuple[int, int], tuple[float, Any]] = {}
    for window, places in enumerate(offsets):
        length = int(windows["attention_mask"][window].sum()) - 2
        for place in range(length):
            left = place if window else np.inf
            right = length - 1 - place if window < len(offsets) - 1 else np.inf
            start, end = places[place + 1]
            if (start, end) not in best or min(left, right) >= best[start, end][0]:
                best[start, end] = (min(left, right), scores[window, place + 1])
    words = ["--max-length", 64, "--stride", stride, "--aggregation", "none"]
    (row,) = run(random_bundle, [text], tmp_path, *words)
    expected = [(span, LABELS[one.argmax()], one.max()) for span, (_, one) in best.items() if one.argmax()]
    assert len(offsets) > 4
    assert [((one["start"], one["end"]), one["entity"]) for one in row["entities"]] == [one[:2] for one in expected]
    np.testing.assert_allclose([one["score"] for one in row["entities"]], [one[2] for one in expected], atol=1e-4)


def test_each_token_is_one_windows_own(random_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(random_bundle), 16)
    for count in (0, 1, 14, 15, 100):
        for stride in (0, 1, 6, 7, 13):
            (tokens,) = tokenizer.read(["good " * count])
            frame = tokenizer.frame()
            windows = tokenizer.windows(count, frame, stride)
            reading = Reading(text="", tokens=tokens, frame=frame, windows=windows)
            owned = [token for index in range(len(windows)) for token in range(count)[reading.owned(index)]]
            assert owned == list(range(count))
            for index, window in enumerate(windows):
                assert window.start <= reading.owned(index).start <= reading.owned(index).stop <= window.stop


def test_bad_texts_are_row_errors_and_equal_ones_are_read_once(finder_bundle: Path, tmp_path: Path) -> None:
    invalid = pa.array([b"good film", b"\xff", None, b"good film"], pa.binary()).view(pa.string())
    for column in (invalid, invalid.dictionary_encode()):
        pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", finder_bundle, "-o", tmp_path / "out", "--overwrite",
                           "--keep-columns", "none")  # fmt: skip
        assert done.code == 0, done.err
        rows = read_output(tmp_path / "out").to_pylist()
        assert [row["error"] and row["error"].split(":")[0] for row in rows] == [None, "invalid_utf8", "null", None]
        assert [row["entities"] and len(row["entities"]) for row in rows] == [1, None, None, 1]


def test_what_does_not_fit_is_refused(finder_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "in.parquet")
    for words, reason in (
        (["--stride", 62], "has place for 62"),
        (["--overflow", "stride"], "--overflow: not for token-classification"),
        (["--aggregation", "last"], "'last' is not one of"),
    ):
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", finder_bundle, *words)
        assert (done.code, reason in done.err) == (2, True), done.err


def test_the_class_of_a_checkpoint_says_what_it_is_for(random_checkpoint: Path) -> None:
    assert infer_task(find_checkpoint(str(random_checkpoint), None)) == "token-classification"
