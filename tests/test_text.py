from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, WORDS
from tfbatch.bundle import load_bundle
from tfbatch.text import TextInput
from tokenizers import Tokenizer


def whole(bundle: Path, text: str, max_length: int) -> list[int]:
    """Token ids by tokenizing all of a text, then cutting."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    ids: list[int] = tokenizer.encode(text).ids
    return ids


@pytest.mark.parametrize("max_length", [8, 64])
def test_a_prefix_gives_the_tokens_of_the_whole(max_length: int, text_bundle: Path) -> None:
    text_input = TextInput(load_bundle(text_bundle), max_length)
    random = np.random.default_rng(0)
    pieces = [
        *WORDS[:-1],
        "\x1c",
        "́",
        "é",
        "[SEP]",
        "  ",
        "\n",
        "\u3000",
        "电影",
        "x" * 150,
        "🎬",
        "a\u00adb",
        "\u200b",
    ]
    texts = [" " * 5000, "x" * 5000, " " * 3000 + "good film", ""]
    for _ in range(500):
        joint = random.choice(["", " ", "\x1c", "\u3000", "影"])
        texts.append(joint.join(random.choice(pieces, random.integers(1, 800))))
    for text, ids in zip(texts, text_input.encode(texts), strict=True):
        assert ids.tolist() == whole(text_bundle, text, max_length), repr(text[:100])


def test_a_ten_megabyte_text_is_cut_before_it_is_tokenized(text_bundle: Path) -> None:
    text_input = TextInput(load_bundle(text_bundle), None)
    assert len(text_input._prefix("good film " * 1_000_000, 512)) < 600
    assert len(text_input._prefix("电影" * 1_000_000, 512)) < 600
    assert len(text_input.encode(["good film " * 1_000_000])[0]) == 64


def test_equal_texts_are_one_input_and_padding_is_masked(text_bundle: Path) -> None:
    work = TextInput(load_bundle(text_bundle), None).prepare(pa.chunked_array([["good", "bad film"], ["good", None]]))
    assert work.result_of_row.tolist() == [0, 1, 0, -1]
    assert work.lengths.tolist() == [3, 4]
    assert list(work.errors) == [3]
    feeds = work.collate(np.array([1, 0]), 6)
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert feeds["input_ids"].tolist() == [[2, 6, 9, 3, 0, 0], [2, 5, 3, 0, 0, 0]]
    assert feeds["input_ids"].dtype == np.int64


def test_the_real_tokenizer_is_known_to_keep_to_word_boundaries() -> None:
    bundle = load_bundle(ROOT / "models" / "sentiment")
    text_input = TextInput(bundle, None)
    assert text_input._word_end is not None
