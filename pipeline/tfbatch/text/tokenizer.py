"""Texts to token ids, as the checkpoint's own tokenizer makes them, without transformers.

A long text is tokenized only as far as it is needed where it is to be cut, and piece by piece where
all of it is wanted: a string of 10 MB, tokenized whole, takes half a minute and 4 GB.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from tfbatch.batches import Indices
from tfbatch.bundle import Bundle
from tfbatch.errors import BadConfiguration, UsageError, first_line
from tfbatch.text.excerpts import PIECE, Excerpts
from tfbatch.text.lots import side_by_side
from tfbatch.text.tokens import (
    Encoded,
    Frame,
    Ids,
    Tokens,
    first_holds_blank,
    ids_of,
    join,
    tokens_of,
)
from tfbatch.text.windows import windows_of

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Rust

CHARACTERS_PER_TOKEN = 8  # a first guess at how long a prefix must be


class Tokenizer:
    """The tokenizer of a bundle. `max_length` is the most tokens of an input, special ones included.

    One thread at a time calls it, since whether it cuts is a state of its own; `word` may be called by any.
    """

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
        self.path = bundle.path
        reads_types = "token_type_ids" in bundle.manifest.inputs
        self._knows_one_type = reads_types and bundle.read_json("config.json").get("type_vocab_size") == 1
        self.has_types = bool(bundle.manifest.settings.get("token_types", True))
        self._excerpts = Excerpts(self._rust)
        self._first_holds_blank = first_holds_blank(self._rust)

    def encode(self, texts: list[str]) -> Encoded:
        """Each text cut at `max_length`, as if all of it had been tokenized and then cut.

        A long text is tokenized only as far as needed: a prefix that ends between words, several
        times as long each time until it fills `max_length` tokens.
        """
        ids: list[Ids] = []
        is_cut: list[bool] = []
        first = CHARACTERS_PER_TOKEN * self.max_length

        def encode_few(few: slice) -> tuple[list[Ids], list[bool]]:
            some = texts[few]
            pieces, found = self._encode_far_enough(some)
            return ids_of(found), [
                len(one) == self.max_length and (len(piece) < len(text) or bool(one.overflowing))
                for one, piece, text in zip(found, pieces, some, strict=True)
            ]

        for some_ids, some_cut in side_by_side(encode_few, [len(self._excerpts.prefix(text, first)) for text in texts]):
            ids += some_ids
            is_cut += some_cut
        return Encoded(ids=ids, types=None, is_cut=np.array(is_cut, bool))

    def check_stride(self, frame: Frame, stride: int | None) -> None:
        """Refuse neighbours that share all that an input has place for, see `windows`."""
        self.windows(0, frame, stride)

    def frame(self, first: str | None = None, *, second: str | None = None) -> Frame:
        """What stands around a text that is alone, or that comes after `first` or before `second`, which
        are not cut."""
        left, right = ("a" if text is None else self._excerpts.shorten(text) for text in (first, second))
        with self.whole() as rust:
            found = rust.encode("a") if first is None and second is None else rust.encode(left, right)
        places = np.flatnonzero([part == (first is not None) for part in found.sequence_ids])
        start, stop = int(places[0]), int(places[-1]) + 1
        ids, types = np.array(found.ids, np.int64), np.array(found.type_ids, np.int64) * self.has_types
        if self._knows_one_type and types.any():
            raise BadConfiguration(
                f"bundle {self.path}: the tokenizer gives two texts two types, the model knows one (type_vocab_size); "
                f"transformers cannot run it on pairs either"
            )
        return Frame(
            before=ids[:start], after=ids[stop:],
            type_before=types[:start], type_within=int(types[start]), type_after=types[stop:],
        )  # fmt: skip

    def read(self, texts: list[str]) -> list[Tokens]:
        """All tokens of each text."""
        pieces = [(index, *piece) for index, text in enumerate(texts) for piece in self._excerpts.pieces(text)]
        parts: list[list[Tokens]] = [[] for _ in texts]

        def read_few(few: slice) -> list[tuple[int, Tokens]]:
            some = pieces[few]
            found = rust.encode_batch([piece for _, _, piece in some], add_special_tokens=False)
            return [
                (index, tokens_of(encoding, start, skips_blank=start > 0 and self._first_holds_blank))
                for (index, start, _), encoding in zip(some, found, strict=True)
            ]

        with self.whole() as rust:
            for some in side_by_side(read_few, [len(piece) for _, _, piece in pieces]):
                for index, tokens in some:
                    parts[index].append(tokens)
        return [join(part) for part in parts]

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
        """Which of a text's tokens go into each input, see `windows_of`."""
        return windows_of(tokens, self.max_length, frame.size, stride)

    def word(self, token: int) -> str:
        """A token as a text of its own."""
        return self._rust.decode([int(token)], skip_special_tokens=False)

    def far_enough(self, text: str) -> str:
        """As much of a very long text as fills an input."""
        return self._encode_far_enough([text])[0][0] if len(text) > PIECE else text

    @contextmanager
    def whole(self) -> "Iterator[Rust]":
        """Within, texts are not cut."""
        self._rust.no_truncation()
        try:
            yield self._rust
        finally:
            self._rust.enable_truncation(self.max_length)

    def _encode_far_enough(self, texts: list[str]) -> "tuple[list[str], list[Encoding]]":
        """A prefix of each text that fills an input by itself, or all of it, and its tokens."""
        characters = CHARACTERS_PER_TOKEN * self.max_length
        pieces = [self._excerpts.prefix(text, characters) for text in texts]
        found = self._encode(pieces)
        for index, text in enumerate(texts):
            longer = characters
            while len(pieces[index]) < len(text) and len(found[index]) < self.max_length:
                longer *= 4
                pieces[index] = self._excerpts.prefix(text, longer)
                found[index] = self._encode([pieces[index]])[0]
        return pieces, found

    def _encode(self, pieces: list[str]) -> "list[Encoding]":
        return self._rust.encode_batch_fast(list(map(self._excerpts.shorten, pieces)))
