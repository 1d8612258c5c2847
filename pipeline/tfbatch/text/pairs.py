"""Two texts in one input: what stands around them, and how much of each is left where they are too long.

Each text is tokenized by itself: `tokenizers` makes of what it cuts off a pair every combination of the two.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfbatch.batches import Indices
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.text.lots import side_by_side
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Encoded, Ids, ids_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Rust


@dataclass(frozen=True, kw_only=True)
class PairFrame:
    """The special tokens before, between and behind two texts: three times ids (S,) int32 and their types (S,);
    `types_within` are those of the two texts."""

    ids: tuple[Ids, ...]
    types: tuple[Indices, ...]
    types_within: tuple[int, int]

    @property
    def size(self) -> int:
        """How many tokens are no text's."""
        return sum(map(len, self.ids))

    def around(self, first: npt.ArrayLike, second: npt.ArrayLike) -> Ids:
        """The ids of an input that holds these tokens of the two texts."""
        before, between, behind = self.ids
        return np.concatenate([before, np.asarray(first, np.int32), between, np.asarray(second, np.int32), behind])

    def types_around(self, first: int, second: int) -> Indices:
        """The type of each token of an input that holds so many of the two texts."""
        (before, between, behind), (one, other) = self.types, self.types_within
        return np.concatenate([before, np.full(first, one), between, np.full(second, other), behind])


class Pairs:
    """Makes inputs of two texts each.

    Raises:
        UsageError: there is no place for a token of each text: `tokenizers` would cut nothing.
        BadConfiguration: the texts do not come once each, the first one first, or the model does not know their types.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        with tokenizer.whole() as rust:
            least = int(rust.num_special_tokens_to_add(is_pair=True)) + 2
            found = pair_frame(rust)
        if tokenizer.max_length < least:
            raise UsageError(f"--max-length {tokenizer.max_length}: a pair of texts takes {least} tokens at least")
        tokenizer.frame("a")  # which refuses types that the model does not know
        if found is None:
            raise BadConfiguration(
                f"bundle {tokenizer.path}: tokenizer.json does not put two texts one behind the other, once each; such "
                f"pairs cannot be run"
            )
        self._frame = found

    def encode(self, firsts: list[str], seconds: list[str]) -> Encoded:
        """Each pair of texts as one input, cut at `max_length`, the longer one first.

        Of two texts of over PIECE characters the odd token may go to the other than if they had been
        tokenized whole.
        """
        frame, place = self._frame, self._tokenizer.max_length - self._frame.size
        lefts, rights = (list(map(self._tokenizer.far_enough, texts)) for texts in (firsts, seconds))
        ids: list[Ids] = []
        types: list[Indices] = []
        is_cut: list[bool] = []

        def encode_few(few: slice) -> tuple[list[Ids], list[Ids]]:
            left, right = (rust.encode_batch_fast(some[few], add_special_tokens=False) for some in (lefts, rights))
            return ids_of(left), ids_of(right)

        with self._tokenizer.whole() as rust:
            for some in side_by_side(encode_few, [len(a) + len(b) for a, b in zip(lefts, rights, strict=True)]):
                for left, right in zip(*some, strict=True):
                    sizes = longest_first(len(left), len(right), place)
                    ids.append(frame.around(left[: sizes[0]], right[: sizes[1]]))
                    types.append(frame.types_around(*sizes))
                    is_cut.append(sum(sizes) < len(left) + len(right))  # as all of over PIECE characters are
        return Encoded(ids=ids, types=types if self._tokenizer.has_types else None, is_cut=np.array(is_cut, bool))


def longest_first(first: int, second: int, place: int) -> tuple[int, int]:
    """How many tokens of two texts of so many are left where there is place for `place` of both: those of the longer
    go first, as `tokenizers` cuts them."""
    if first + second <= place:
        return first, second
    if first > second:
        return longest_first(second, first, place)[::-1]
    if first + max(first, place - first) > place:
        return place // 2, place - place // 2
    return first, place - first


def pair_frame(rust: "Rust") -> PairFrame | None:
    """What a tokenizer that does not cut puts around two texts; None where these do not come once each, the first
    one first. It is read off one pair of words, and has to give another."""
    found, turned = rust.encode("a", "b"), rust.encode("b", "a")
    left, right = (rust.encode(text, add_special_tokens=False).ids for text in "ab")
    of = np.array([-1 if part is None else part for part in found.sequence_ids])
    first, second = (np.flatnonzero(of == part) for part in (0, 1))
    cuts = [*first[[0, -1]] + [0, 1], *second[[0, -1]] + [0, 1]]
    ids, types = np.split(np.array(found.ids, np.int32), cuts), np.split(np.array(found.type_ids, np.int64), cuts)
    within = int(types[1][0]), int(types[3][0])
    frame = PairFrame(ids=tuple(ids[::2]), types=tuple(types[::2]), types_within=within)
    is_right = sorted(cuts) == cuts and frame.around(right, left).tolist() == turned.ids
    return frame if is_right else None
