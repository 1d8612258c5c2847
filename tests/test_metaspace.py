"""Tokenizers of every text family: prefixes, pairs and windows give what transformers gives."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_checkpoints import TOKENIZERS, real_texts, roberta_tokenizer
from tfbatch.bundle import Bundle
from tfbatch.bundles.manifest import Manifest
from tfbatch.text.excerpts import PIECE
from tfbatch.text.metaspace import BLANK_BETWEEN_LETTERS, ends_words_at_blanks
from tfbatch.text.pairs import Pairs
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.word_ends import find_word_end
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Rust

LENGTH = 40
ODD = [" ", "  ", "\n", "\t", "\u3000", "\u00a0", "\u1680", "\u200b", "\u0301", "\u00a8", "\u0600", "\u0d4e", "▁",
       "``", "\u037a", "\ufe70", "\u0e33", "👍🏽", "电影", "é", "e\u0301", "\x01", "'s", "ﬁ", "\u1100\u1161",
       "a" * 90]  # fmt: skip


WHOLE = {"deberta_v2"}  # of which no place is known where a word surely ends


ORDINARY = ("albert", "roberta")
KINDS = [
    pytest.param(name, marks=() if name in ORDINARY else pytest.mark.families)
    for name in [*sorted(TOKENIZERS.keys() - WHOLE), "roberta with a blank in front"]
]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer]:
    """A tokenizer of transformers and the run stage's of the files it writes."""
    from transformers import AutoTokenizer

    name, folder = request.param, tmp_path_factory.mktemp("tokenizer")
    tokenizer = TOKENIZERS[name]() if name in TOKENIZERS else roberta_tokenizer(add_prefix_space=True)
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), Tokenizer(bundle_of(folder), LENGTH)


def bundle_of(folder: Path) -> Bundle:
    """As much of a bundle as a tokenizer reads."""
    settings = {"max_length": LENGTH, "pad_token_id": 0}
    manifest = Manifest(
        task="text-classification", family="any", source={}, labels=[], inputs=[], settings=settings, graphs={},
        versions={},
    )  # fmt: skip
    return Bundle(path=folder, manifest=manifest)


def random_texts(special: list[str], count: int, pieces: int) -> list[str]:
    """Words of real texts, special tokens and what is odd, joined by nothing, blanks and more."""
    random = np.random.default_rng(0)
    words = " ".join(real_texts()[:50]).split()
    choices = [*words[:300], *special, *ODD, *ODD]
    return [
        random.choice(["", " ", " ", "  ", "\u3000"]).join(random.choice(choices, random.integers(0, pieces)))
        for _ in range(count)
    ]


def test_a_prefix_gives_the_tokens_of_the_whole(made: tuple[Any, Tokenizer]) -> None:
    reference, tokenizer = made
    texts = [*random_texts(reference.all_special_tokens, 300, 800), "", " " * 5000, " ".join(real_texts())]
    expected = reference(texts, truncation=True, max_length=LENGTH)["input_ids"]
    found = tokenizer.encode(texts)
    for text, ids, wanted in zip(texts, found.ids, expected, strict=True):
        assert ids.tolist() == wanted, repr(text[:100])


def test_a_long_text_is_cut_before_it_is_tokenized(made: tuple[Any, Tokenizer]) -> None:
    _, tokenizer = made
    for words in ("good film ", "хороший фильм "):
        assert len(tokenizer._excerpts.prefix(words * 700_000, 512)) < 600
        assert len(tokenizer.encode([words * 700_000]).ids[0]) == LENGTH


def test_a_text_in_pieces_gives_the_tokens_of_the_whole(made: tuple[Any, Tokenizer]) -> None:
    """Whatever the pieces: each end of a word is one."""
    reference, tokenizer = made
    assert tokenizer._excerpts._word_end is not None
    for text in random_texts(reference.all_special_tokens, 150, 60):
        ends = [end.start() for end in tokenizer._excerpts._word_end.finditer(text)]
        pieces = [text[start:stop] for start, stop in zip([0, *ends], [*ends, len(text)], strict=True)]
        ids = [one for piece in pieces for one in reference(piece, add_special_tokens=False)["input_ids"]]
        assert ids == reference(text, add_special_tokens=False)["input_ids"], repr(text)


def test_tokens_of_a_whole_text_lie_where_transformers_says(made: tuple[Any, Tokenizer]) -> None:
    reference, tokenizer = made
    text = " ".join(real_texts() * 4)
    assert len(text) > 2 * PIECE
    expected = reference(text, add_special_tokens=False, return_offsets_mapping=True)
    (tokens,) = tokenizer.read([text])
    ids, offsets = tokens.ids, tokens.offsets
    assert ids.tolist() == expected["input_ids"]
    assert offsets.tolist() == [list(place) for place in expected["offset_mapping"]]


def test_pairs_are_cut_and_typed_as_transformers_has_them(made: tuple[Any, Tokenizer]) -> None:
    reference, tokenizer = made
    firsts, seconds = real_texts()[:60], real_texts()[60:120]
    expected = reference(firsts, seconds, truncation=True, max_length=LENGTH, return_token_type_ids=True)
    found = Pairs(tokenizer).encode(firsts, seconds)
    assert found.types is not None
    assert [ids.tolist() for ids in found.ids] == expected["input_ids"]
    assert [types.tolist() for types in found.types] == expected["token_type_ids"]


@pytest.mark.parametrize("question", [None, "good film?"])
def test_windows_are_framed_as_transformers_has_them(question: str | None, made: tuple[Any, Tokenizer]) -> None:
    reference, tokenizer = made
    for text in real_texts()[-14:]:
        pair = (text,) if question is None else (question, text)
        expected = reference(
            *pair, truncation=True if question is None else "only_second", max_length=LENGTH, stride=8,
            return_overflowing_tokens=True, return_token_type_ids=True,
        )  # fmt: skip
        frame = tokenizer.frame(question)
        tokens = tokenizer.read([text])[0].ids
        ids = [frame.around(tokens[window]).tolist() for window in tokenizer.windows(len(tokens), frame, 8)]
        assert ids == expected["input_ids"]
        if "token_type_ids" in reference.model_input_names:
            assert [frame.types(len(one)).tolist() for one in ids] == expected["token_type_ids"]


def test_letters_beside_a_blank_neither_join_it_nor_hold_one() -> None:
    letters = [chr(code) for code in range(0x110000) if BLANK_BETWEEN_LETTERS.search(f"{chr(code)} {chr(code)}")]
    assert len(letters) > 30_000
    for letter in letters:
        assert unicodedata.category(letter)[0] in "LNPS" or unicodedata.category(letter) == "Cn", repr(letter)
        assert unicodedata.combining(letter) == 0
        assert not any(character.isspace() for character in unicodedata.normalize("NFKD", letter)), repr(letter)


def unigram(normalizer: Any = None, splitter: Any = None, added: AddedToken | None = None) -> Rust:
    """A tokenizer of two pieces."""
    rust = Rust(models.Unigram([("<unk>", 0.0), ("▁a", -1.0)], unk_id=0))
    rust.pre_tokenizer = splitter or pre_tokenizers.Metaspace()
    if normalizer is not None:
        rust.normalizer = normalizer
    if added is not None:
        rust.add_tokens([added])
    return rust


@pytest.mark.parametrize(
    "normalizer",
    [
        None, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "▁"),
        normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace("``", '"'), normalizers.Lowercase()]),
    ],
)  # fmt: skip
def test_unigrams_behind_metaspace_end_words_at_blanks(normalizer: Any) -> None:
    assert ends_words_at_blanks(unigram(normalizer))
    assert find_word_end(unigram(normalizer)) is BLANK_BETWEEN_LETTERS


@pytest.mark.parametrize(
    "tokenizer",
    [
        unigram(splitter=pre_tokenizers.Metaspace(split=False)), unigram(splitter=pre_tokenizers.Whitespace()),
        unigram(normalizers.Strip()), unigram(normalizers.Replace(" ", "▁")), unigram(normalizers.Prepend("▁")),
        unigram(normalizers.Replace(Regex("a b"), "c")), unigram(added=AddedToken("a b", normalized=False)),
        unigram(normalizers.NFKC(), added=AddedToken("a\u00a0b")), unigram(added=AddedToken("<x>", rstrip=True)),
    ],
)  # fmt: skip
def test_where_it_is_not_known_that_words_end_at_blanks_they_do_not(tokenizer: Rust) -> None:
    assert find_word_end(tokenizer) is None
