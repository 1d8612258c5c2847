from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import copy_bundle
from conftest import ROOT, WORDS, run_tfbatch
from tfbatch.bundle import load_bundle
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.text.excerpts import PIECE
from tfbatch.text.lots import at_once
from tfbatch.text.pairs import Pairs
from tfbatch.text.tokenizer import Tokenizer
from tokenizers import Tokenizer as Rust
from tokenizers.processors import TemplateProcessing


def whole(bundle: Path, text: str, max_length: int) -> list[int]:
    """Token ids by tokenizing all of a text, then cutting."""
    rust = Rust.from_file(str(bundle / "tokenizer.json"))
    rust.no_padding()
    rust.enable_truncation(max_length)
    ids: list[int] = rust.encode(text).ids
    return ids


@pytest.mark.parametrize("max_length", [8, 64])
def test_a_prefix_gives_the_tokens_of_the_whole(max_length: int, text_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle), max_length)
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
    for text, ids in zip(texts, tokenizer.encode(texts).ids, strict=True):
        assert ids.tolist() == whole(text_bundle, text, max_length), repr(text[:100])


def test_a_ten_megabyte_text_is_cut_before_it_is_tokenized(text_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle))
    assert len(tokenizer._excerpts.prefix("good film " * 1_000_000, 512)) < 600
    assert len(tokenizer._excerpts.prefix("电影" * 1_000_000, 512)) < 600
    assert len(tokenizer.encode(["good film " * 1_000_000]).ids[0]) == 64


def test_the_real_tokenizer_is_known_to_keep_to_word_boundaries() -> None:
    bundle = load_bundle(ROOT / "models" / "sentiment")
    tokenizer = Tokenizer(bundle)
    assert tokenizer._excerpts._word_end is not None


def test_texts_are_tokenized_few_at_a_time_as_they_would_be_alone(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle), 8)
    texts = ["good film", "", "bad " * 100, "good", "film " * 5, "bad film", "good " * 9] * 3
    others, pairs = texts[::-1], Pairs(tokenizer)
    alone = [tokenizer.encode([text]) for text in texts]
    alone_pairs = [pairs.encode([text], [other]) for text, other in zip(texts, others, strict=True)]
    monkeypatch.setattr("tfbatch.text.lots.AT_ONCE", 50)
    monkeypatch.setattr("tfbatch.text.lots.available_threads", lambda: 1)
    assert len(list(at_once([len(text) for text in texts]))) > 5
    for found, ones in ((tokenizer.encode(texts), alone), (pairs.encode(texts, others), alone_pairs)):
        assert [ids.tolist() for ids in found.ids] == [one.ids[0].tolist() for one in ones]
        assert found.is_cut.tolist() == [one.is_cut[0] for one in ones]
        if found.types is not None:
            assert [types.tolist() for types in found.types] == [one.types[0].tolist() for one in ones if one.types]
    assert tokenizer.encode([]).ids == pairs.encode([], []).ids == []


def test_what_is_tokenized_at_once_is_all_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfbatch.text.lots.AT_ONCE", 10)
    monkeypatch.setattr("tfbatch.text.lots.available_threads", lambda: 1)
    assert list(at_once([4, 6, 1, 20, 0, 10, 3])) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6), slice(6, 7)]
    assert list(at_once([])) == []
    monkeypatch.setattr("tfbatch.text.lots.available_threads", lambda: 2)
    assert list(at_once([4, 6, 1, 20, 0, 10, 3])) == [slice(0, 3), slice(3, 5), slice(5, 7)]
    monkeypatch.setattr("tfbatch.text.lots.available_threads", lambda: 64)
    monkeypatch.setattr("tfbatch.text.lots.MOST_AT_ONCE", 11)
    assert list(at_once([4, 6, 1, 20, 0, 10, 3])) == [slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7)]


def test_what_was_cut_is_known(text_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle), 8)
    texts = ["", "good film", "good " * 6, "good " * 7, "good " * 5000, "good" + " " * 5000]
    assert tokenizer.encode(texts).is_cut.tolist() == [False, False, False, True, True, False]


@pytest.mark.parametrize("max_length", [8, 15, 64])
def test_pairs_are_cut_as_transformers_cuts_them(max_length: int, text_checkpoint: Path, text_bundle: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(text_checkpoint)
    random = np.random.default_rng(0)
    firsts, seconds = (
        [" ".join(random.choice(WORDS[:-1], random.integers(0, 60))) for _ in range(100)] for _ in range(2)
    )
    expected = reference(firsts, seconds, truncation=True, max_length=max_length)
    found = Pairs(Tokenizer(load_bundle(text_bundle), max_length)).encode(firsts, seconds)
    assert found.types is not None
    assert [ids.tolist() for ids in found.ids] == expected["input_ids"]
    assert [types.tolist() for types in found.types] == expected["token_type_ids"]
    whole_lengths = [len(ids) for ids in reference(firsts, seconds)["input_ids"]]
    assert found.is_cut.tolist() == [length > max_length for length in whole_lengths]


@pytest.mark.parametrize("template", ["[CLS] $B:1 [SEP] $A:0 [SEP]", "[CLS] $A $A [SEP] $B:1 [SEP]"])
def test_a_template_that_is_not_one_text_behind_the_other_is_refused(
    template: str, text_bundle: Path, tmp_path: Path
) -> None:
    bundle = copy_bundle(text_bundle, tmp_path / "bundle")
    tokenizer = Tokenizer(load_bundle(bundle), 16)
    special = [(name, tokenizer._rust.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer._rust.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=template, special_tokens=special)
    with pytest.raises(BadConfiguration, match="does not put two texts one behind the other"):
        Pairs(tokenizer)


def test_a_pair_of_long_texts_takes_memory_for_the_two_and_not_for_their_combinations(
    text_bundle: Path, tmp_path: Path
) -> None:
    peaks = []
    for words in (1, 4_000):
        text = " ".join(["film"] * words)
        pq.write_table(pa.table({"text": [text], "other": [text]}), tmp_path / "in.parquet")
        options = ["--input-column", "text", "--text-pair-column", "other", "--overwrite"]
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out", *options)
        assert (done.code, done.result["truncated_rows"]) == (0, int(words > 1)), done.err
        peaks.append(done.result["peak_memory_bytes"])
    assert peaks[1] - peaks[0] < 50e6


@pytest.mark.parametrize("stride", [0, 3, 20])
def test_windows_are_those_of_transformers(stride: int, text_checkpoint: Path, text_bundle: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(text_checkpoint)
    tokenizer = Tokenizer(load_bundle(text_bundle), 40)
    random = np.random.default_rng(0)
    for question in (None, "good film was good"):
        for words in (0, 1, 30, 38, 39, 200):
            if question and not words:
                continue  # to transformers a pair with nothing is no pair
            text = " ".join(random.choice(WORDS[:-1], words))
            pair = (text,) if question is None else (question, text)
            expected = reference(
                *pair, truncation=True if question is None else "only_second", max_length=40, stride=stride,
                return_overflowing_tokens=True, return_offsets_mapping=True,
            )  # fmt: skip
            frame = tokenizer.frame(question)
            (found,) = tokenizer.read([text])
            tokens, offsets = found.ids, found.offsets
            windows = tokenizer.windows(len(tokens), frame, stride)
            ids = [frame.around(tokens[window]).tolist() for window in windows]
            assert ids == expected["input_ids"]
            assert [frame.types(len(one)).tolist() for one in ids] == expected["token_type_ids"]
            for window, mapping in zip(windows, expected["offset_mapping"], strict=True):
                inner = mapping[len(frame.before) : len(mapping) - len(frame.after)]
                assert offsets[window].tolist() == [list(place) for place in inner]


def test_a_long_text_is_tokenized_in_pieces_to_the_same_tokens(text_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle))
    random = np.random.default_rng(0)
    text = "".join(random.choice(["good", " film", "电影", " ", "\n", "é", "a"], PIECE))
    (tokens,) = tokenizer.read([text])
    ids, offsets = tokens.ids, tokens.offsets
    rust = Rust.from_file(str(text_bundle / "tokenizer.json"))
    rust.no_truncation()
    found = rust.encode(text, add_special_tokens=False)
    assert len(text) > 2 * PIECE
    assert ids.tolist() == found.ids
    assert offsets.tolist() == [list(place) for place in found.offsets]
    words = tokenizer.read(["", text])[1].words
    assert (np.diff(words) != 0).tolist() == (np.diff(found.word_ids) != 0).tolist()
    assert (np.diff(words) >= 0).all()


def test_a_stride_that_leaves_no_place_is_refused(text_bundle: Path) -> None:
    tokenizer = Tokenizer(load_bundle(text_bundle), 8)
    with pytest.raises(UsageError, match="has place for 6"):
        tokenizer.windows(100, tokenizer.frame(), 6)
