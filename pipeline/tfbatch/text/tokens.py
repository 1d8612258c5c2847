"""What tokenizing texts gives: a model's inputs, or all tokens of a text and what stands around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfbatch.batches import Indices
from tfbatch.text.metaspace import steps

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Rust

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


def ids_of(found: "Sequence[Encoding]") -> list[Ids]:
    """Token ids (L,) of each, in one array of all: an array of each would take a third more time."""
    ends = np.cumsum(list(map(len, found))).tolist()
    every = np.fromiter(chain.from_iterable(one.ids for one in found), np.int32, ends[-1] if ends else 0)
    return [every[start:stop] for start, stop in pairwise([0, *ends])]


def tokens_of(found: "Encoding", start: int, *, skips_blank: bool) -> Tokens:
    """The tokens of a piece that begins at `start` of its text; the blank that a piece may begin with is
    none of its first token's where `skips_blank`."""
    offsets = np.array(found.offsets, np.int64).reshape(-1, 2)
    if skips_blank:
        offsets[:1] = np.maximum(offsets[:1], 1)
    words = [0 if word is None else word for word in found.word_ids]
    return Tokens(
        ids=np.array(found.ids, np.int32),
        offsets=offsets + start,
        words=np.maximum.accumulate(np.array(words, np.int64)),
    )


def first_holds_blank(tokenizer: "Rust") -> bool:
    """Whether tokens lie where their word does but a text's first, with which the blank before it counts."""
    processors = steps(tokenizer.post_processor, "processors")
    return any(step.get("trim_offsets") and step.get("add_prefix_space") for step in processors)


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
