"""Two texts in one input: what stands around them, and how much of each is left where they are too long."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfbatch.batches import Indices
from tfbatch.text.tokens import Ids

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
