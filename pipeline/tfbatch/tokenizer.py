"""Texts to token ids, as the checkpoint's own tokenizer makes them, without transformers.

A long text is tokenized only as far as it is needed where it is to be cut, and piece by piece where
all of it is wanted: a string of 10 MB, tokenized whole, takes half a minute and 4 GB.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfbatch.batches import Indices
from tfbatch.bundle import Bundle
from tfbatch.errors import BadConfiguration, UsageError, first_line
from tfbatch.machine import available_threads
from tfbatch.metaspace import BLANK_BETWEEN_LETTERS, ends_words_at_blanks, steps

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Rust

CHARACTERS_PER_TOKEN = 8  # a first guess at how long a prefix must be
AT_ONCE = 1 << 15  # characters a thread that are tokenized together: while they are, a token takes a hundred bytes
MOST_AT_ONCE = 8 * AT_ONCE
PIECE = 1 << 16  # characters that are tokenized at once of a text that is wanted whole
PIECES = 32  # that are tokenized side by side
STRIDE = 128  # tokens that neighbouring windows share, or half of a window
SPACE = re.compile(r"[ \t\r\n]")  # white space to Python and to BERT's normalizer alike
SPACE_OR_HAN = re.compile(r"[ \t\r\n\u4e00-\u9fff]")  # with Chinese characters, which it makes words of their own
# A blank after what is none to Python, and so none to Unicode (nor to older tables, which had U+180E).
BLANK_AFTER_WORD = re.compile(r"(?<=[^\s\u180e]) ")
BLANK_BETWEEN_WORDS = re.compile(r"(?<=[^\s\u180e]) (?=[^\s\u180e])")  # where tokens may be runs of blanks
LONG = 1 << 14  # characters of a prefix from which on runs are shortened

Flags = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32] | Indices  # int32 where they are a text's: millions of them wait


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """N inputs: their token ids, special tokens included, and of pairs the type of each token (else
    None: all are of the first type); `is_cut` (N,) says where there was more text than went in."""

    ids: Sequence[Ids]
    types: Sequence[Indices] | None
    is_cut: Flags


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """All tokens of a text, without special ones: `ids` (L,), `offsets` (L, 2) where each lies in it, in
    characters, the end exclusive, and `words` (L,), rising, the number of the word that each is of."""

    ids: Ids
    offsets: Indices
    words: Indices


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The tokens around a text: special ones, and before or behind it maybe another text, whole.

    `before` (P,) and `after` (S,) are ids, `type_before` (P,) and `type_after` (S,) their types, `type_within`
    that of the text.
    """

    before: Indices
    after: Indices
    type_before: Indices
    type_within: int
    type_after: Indices

    @property
    def size(self) -> int:
        """How many tokens are not the text's."""
        return len(self.before) + len(self.after)

    def around(self, tokens: Ids) -> Indices:
        """The ids of an input that holds these tokens (L,) of the text."""
        return np.concatenate([self.before, tokens, self.after])

    def types(self, length: int) -> Indices:
        """The type of each token of an input of `length` tokens in all."""
        within = np.full(length - self.size, self.type_within)
        return np.concatenate([self.type_before, within, self.type_after])


class Tokenizer:
    """The tokenizer of a bundle. `max_length` is the most tokens of an input, special ones included."""

    def __init__(self, bundle: Bundle, max_length: int | None = None) -> None:
        from tokenizers import Tokenizer as Rust

        longest = bundle.setting("max_length")
        if max_length is not None and not 3 <= max_length <= longest:
            raise UsageError(f"--max-length {max_length}: this model takes 3 to {longest} tokens")
        self.max_length = max_length or longest
        try:
            self._rust: Rust = Rust.from_file(str(bundle.path / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise BadConfiguration(
                f"bundle {bundle.path}: tokenizer.json cannot be read: {first_line(error)}"
            ) from error
        self._rust.no_padding()
        self._rust.enable_truncation(self.max_length)
        self._settings = bundle.read_json("tokenizer_config.json")
        self._has_types = bool(bundle.manifest.settings.get("token_types", True))
        self._word_end = find_word_end(self._rust)
        self._run = find_run(self._rust)
        self._first_holds_blank = first_holds_blank(self._rust)

    def encode(self, texts: list[str]) -> Encoded:
        """Each text cut at `max_length`, as if all of it had been tokenized and then cut.

        A long text is tokenized only as far as needed: a prefix that ends between words, several
        times as long each time until it fills `max_length` tokens.
        """
        ids: list[Ids] = []
        is_cut: list[bool] = []
        first = CHARACTERS_PER_TOKEN * self.max_length
        for few in at_once([len(self._prefix(text, first)) for text in texts]):
            some = texts[few]
            pieces, found = self._encode_far_enough(some)
            is_cut += [
                len(one.ids) == self.max_length and (len(piece) < len(text) or bool(one.overflowing))
                for one, piece, text in zip(found, pieces, some, strict=True)
            ]
            ids += map(ids_of, found)
        return Encoded(ids=ids, types=None, is_cut=np.array(is_cut, bool))

    def encode_pairs(self, firsts: list[str], seconds: list[str]) -> Encoded:
        """Each pair of texts as one input, cut at `max_length`, the longer one first.

        Of two texts of over PIECE characters the odd token may go to the other than if they had been
        tokenized whole.
        """
        ids: list[Ids] = []
        types: list[Indices] = []
        is_cut: list[bool] = []
        sizes = [[len(self._prefix(text, PIECE)) for text in texts] for texts in (firsts, seconds)]
        for few in at_once(list(map(sum, zip(*sizes, strict=True)))):
            some = firsts[few], seconds[few]
            pieces = [[self._far_enough(text) for text in texts] for texts in some]
            found = self._rust.encode_batch_fast(list(zip(*pieces, strict=True)))
            is_cut += [
                bool(one.overflowing) or len(left) + len(right) > len(start) + len(other)
                for one, left, right, start, other in zip(found, *some, *pieces, strict=True)
            ]
            ids += map(ids_of, found)
            types += [np.array(one.type_ids, np.int64) for one in found] if self._has_types else []
        return Encoded(ids=ids, types=types if self._has_types else None, is_cut=np.array(is_cut, bool))

    def check_pairs(self) -> None:
        """Refuse a length that has no place for a token of each of two texts: tokenizers would cut nothing."""
        least = int(self._rust.num_special_tokens_to_add(is_pair=True)) + 2
        if self.max_length < least:
            raise UsageError(f"--max-length {self.max_length}: a pair of texts takes {least} tokens at least")

    def frame(self, first: str | None = None, *, second: str | None = None) -> Frame:
        """What stands around a text that is alone, or that comes after `first` or before `second`, which
        are not cut."""
        left, right = ("a" if text is None else self._shorten(text) for text in (first, second))
        self._rust.no_truncation()
        try:
            found = self._rust.encode("a") if first is None and second is None else self._rust.encode(left, right)
        finally:
            self._rust.enable_truncation(self.max_length)
        places = np.flatnonzero([part == (first is not None) for part in found.sequence_ids])
        start, stop = int(places[0]), int(places[-1]) + 1
        ids, types = np.array(found.ids, np.int64), np.array(found.type_ids, np.int64) * self._has_types
        return Frame(
            before=ids[:start], after=ids[stop:],
            type_before=types[:start], type_within=int(types[start]), type_after=types[stop:],
        )  # fmt: skip

    def read(self, texts: list[str]) -> list[Tokens]:
        """All tokens of each text."""
        pieces = [(index, *piece) for index, text in enumerate(texts) for piece in self._pieces(text)]
        parts: list[list[Tokens]] = [[] for _ in texts]
        self._rust.no_truncation()
        try:
            for first in range(0, len(pieces), PIECES):
                some = pieces[first : first + PIECES]
                found = self._rust.encode_batch([piece for _, _, piece in some], add_special_tokens=False)
                for (index, start, _), encoding in zip(some, found, strict=True):
                    parts[index].append(tokens_of(encoding, start, skips_blank=start > 0 and self._first_holds_blank))
        finally:
            self._rust.enable_truncation(self.max_length)
        return [join(part) for part in parts]

    def whole(self, text: str) -> tuple[Ids, Indices]:
        """The ids and offsets of all tokens of a text."""
        tokens = self.read([text])[0]
        return tokens.ids, tokens.offsets

    def written_sizes(self) -> Indices | None:
        """How many characters each token of the vocabulary (V,) is written with, those that say that it
        goes on with a word (`##`) among them; None where words are not marked so."""
        if not getattr(self._rust.model, "continuing_subword_prefix", None):
            return None
        places = self._rust.get_vocab()
        sizes = np.zeros(max(places.values()) + 1, np.int64)
        sizes[list(places.values())] = list(map(len, places))
        return sizes

    def unknown(self) -> int | None:
        """The token that stands for what the vocabulary has none for."""
        name = self._settings.get("unk_token")
        name = name.get("content") if isinstance(name, dict) else name
        return self._rust.token_to_id(name) if isinstance(name, str) else None

    def windows(self, tokens: int, frame: Frame, stride: int | None = None) -> list[slice]:
        """Which of a text's tokens go into each input, so that all are in one at least.

        Neighbours share `stride` tokens; see STRIDE for the default.

        Raises:
            UsageError: an input has no place for more tokens than are shared.
        """
        width = self.max_length - frame.size
        shared = min(STRIDE, self.max_length // 2, max(width, 0) // 2) if stride is None else stride
        if width < 1:
            raise UsageError(f"--max-length {self.max_length} leaves no place beside {frame.size} other tokens")
        if width <= shared:
            raise UsageError(
                f"--stride {shared}: an input of {self.max_length} tokens has place for {width} of the text's; "
                f"neighbours can share fewer than that"
            )
        count = max(1, -(-(tokens - shared) // (width - shared)))
        starts = [index * (width - shared) for index in range(count)]
        return [slice(start, min(start + width, tokens)) for start in starts]

    def word(self, token: int) -> str:
        """A token as a text of its own."""
        return self._rust.decode([int(token)], skip_special_tokens=False)

    def _pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """A text in pieces that can be tokenized one by one, each with where it begins."""
        start = 0
        while start < len(text):
            end = self._word_end.search(text, start + PIECE) if self._word_end and len(text) - start > PIECE else None
            stop = end.start() if end else len(text)
            yield start, text[start:stop]
            start = stop

    def _encode_far_enough(self, texts: list[str]) -> "tuple[list[str], list[Encoding]]":
        """A prefix of each text that fills an input by itself, or all of it, and its tokens."""
        characters = CHARACTERS_PER_TOKEN * self.max_length
        pieces = [self._prefix(text, characters) for text in texts]
        found = self._encode(pieces)
        for index, text in enumerate(texts):
            longer = characters
            while len(pieces[index]) < len(text) and len(found[index].ids) < self.max_length:
                longer *= 4
                pieces[index] = self._prefix(text, longer)
                found[index] = self._encode([pieces[index]])[0]
        return pieces, found

    def _far_enough(self, text: str) -> str:
        """As much of a very long text as fills an input."""
        return self._encode_far_enough([text])[0][0] if len(text) > PIECE else text

    def _encode(self, pieces: list[str]) -> "list[Encoding]":
        return self._rust.encode_batch_fast([self._shorten(piece) for piece in pieces])

    def _prefix(self, text: str, characters: int) -> str:
        """The text up to the first end of a word at or after so many characters."""
        if self._word_end is None or len(text) <= 2 * characters:
            return text
        end = self._word_end.search(text, characters)
        return text[: end.start()] if end else text

    def _shorten(self, text: str) -> str:
        """The text without what `find_run` proves to add no token."""
        return text if self._run is None or len(text) <= LONG else self._run.sub(r"\1\2", text)


def at_once(sizes: list[int]) -> Iterator[slice]:
    """Which texts are tokenized together, by how many characters of each are."""
    first, held, limit = 0, 0, min(AT_ONCE * available_threads(), MOST_AT_ONCE)
    for index, size in enumerate(sizes):
        if index > first and held + size > limit:
            yield slice(first, index)
            first, held = index, 0
        held += size
    if first < len(sizes):
        yield slice(first, len(sizes))


def ids_of(found: "Encoding") -> Ids:
    """Token ids (L,)."""
    return np.array(found.ids, np.int32)


def tokens_of(found: "Encoding", start: int, *, skips_blank: bool) -> Tokens:
    """The tokens of a piece that begins at `start` of its text; the blank that a piece may begin with is
    none of its first token's where `skips_blank`."""
    offsets = np.array(found.offsets, np.int64).reshape(-1, 2)
    if skips_blank:
        offsets[:1] = np.maximum(offsets[:1], 1)
    words = [0 if word is None else word for word in found.word_ids]
    return Tokens(
        ids=ids_of(found),
        offsets=offsets + start,
        words=np.maximum.accumulate(np.array(words, np.int64)),
    )


def join(parts: list[Tokens]) -> Tokens:
    """The tokens of a text from those of its pieces, which end between words."""
    words, count = [np.zeros(0, np.int64)], 0
    for part in parts:
        words.append(part.words + count)
        count = int(words[-1][-1]) + 1 if len(part.words) else count
    return Tokens(
        ids=np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
        offsets=np.concatenate([np.zeros((0, 2), np.int64), *(part.offsets for part in parts)]),
        words=np.concatenate(words),
    )


def find_word_end(tokenizer: "Rust") -> re.Pattern[str] | None:
    """What no token of this tokenizer reaches across from the left, so that the tokens of a prefix
    that ends before it are the whole's first tokens; None where that is not known.

    BERT's word pieces: white space is dropped, and Chinese characters stand alone. GPT-2's byte
    pairs: a token may begin with a blank, but none that began before it holds one, and a blank is
    a boundary of canonical composition (NFC). Unigrams behind Metaspace: see `metaspace`. An added
    token may hold no blank, or be one of nothing else, nor take those on its right.
    """
    added = added_tokens(tokenizer)
    if any(token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return None
    if is_byte_pairs(tokenizer):
        blank = [content for content in added if SPACE_OR_HAN.search(content)]
        if all(re.fullmatch(" {2,}", content) for content in blank):
            return BLANK_BETWEEN_WORDS if blank else BLANK_AFTER_WORD
    elif ends_words_at_blanks(tokenizer):
        return BLANK_BETWEEN_LETTERS
    elif is_bert(tokenizer) and not any(map(SPACE_OR_HAN.search, added)):
        return SPACE_OR_HAN if tokenizer.normalizer.handle_chinese_chars else SPACE
    return None


def find_run(tokenizer: "Rust") -> re.Pattern[str] | None:
    """What may be shortened to its groups and leaves the tokens as they are; None where that is not
    known. To BERT's word pieces white space is one or many, and a word of more than so many letters
    is unknown whatever follows them. No added token may lie across what is taken out.
    """
    if not is_bert(tokenizer):
        return None
    most = tokenizer.model.max_input_chars_per_word
    for content in added_tokens(tokenizer):
        if len(content) > most or SPACE.search(content) or re.search(r"^[0-9A-Za-z]|[0-9A-Za-z]$", content):
            return None
    return re.compile(rf"([0-9A-Za-z]{{{most + 1}}})[0-9A-Za-z]+|([ \t\r\n])[ \t\r\n]+")


def is_byte_pairs(tokenizer: "Rust") -> bool:
    """Whether a tokenizer makes byte pairs of words as GPT-2 does."""
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    return (
        isinstance(tokenizer.model, models.BPE)
        and not tokenizer.model.dropout
        and isinstance(splitter, pre_tokenizers.ByteLevel)
        and splitter.use_regex
        and (normalizer is None or isinstance(normalizer, normalizers.NFC))
    )


def is_bert(tokenizer: "Rust") -> bool:
    """Whether a tokenizer makes word pieces as BERT does."""
    from tokenizers import models, normalizers, pre_tokenizers

    return (
        isinstance(tokenizer.model, models.WordPiece)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
    )


def first_holds_blank(tokenizer: "Rust") -> bool:
    """Whether tokens lie where their word does but a text's first, with which the blank before it counts."""
    processors = steps(tokenizer.post_processor, "processors")
    return any(step.get("trim_offsets") and step.get("add_prefix_space") for step in processors)


def added_tokens(tokenizer: "Rust") -> list[str]:
    """Tokens that are found in a text before it is split."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]
