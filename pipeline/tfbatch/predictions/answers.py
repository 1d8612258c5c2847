"""Logits of where an answer starts and ends to the answer of a text.

The likeliest span of a window is that with the largest product of the two probabilities, which are
taken over the text's tokens and the first one, that stands for no answer (Chen et al., 2017; Devlin
et al., 2018); the likeliest of all windows is the text's. The Hub's pipeline did so too, and in its
last releases added up the scores of equal answers, each window's own and those beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfbatch.config import RunConfig
from tfbatch.predictions.scores import softmax
from tfbatch.results import Floats
from tfbatch.text.readings import Reading


@dataclass(frozen=True, kw_only=True)
class Span:
    """The likeliest answer of a window: its first and last token in the text, and how likely it is, and
    that there is none."""

    first: int
    last: int
    score: float
    none_score: float


def answer_columns() -> pa.Schema:
    """`answer` with its score and where it lies in the text, in characters, the end exclusive."""
    kinds = {"answer": pa.string(), "answer_score": pa.float32(), "answer_start": pa.int32(), "answer_end": pa.int32()}
    return pa.schema(list(kinds.items()))


class Answers:
    """Fills `answer_columns`. With `--handle-impossible` an answer is null, with the score of that, where
    each window holds it for likelier that there is none than any holds its own."""

    def __init__(self, config: RunConfig) -> None:
        self._longest = config.max_answer_length
        self._may_be_none = config.handle_impossible

    def keep(self, reading: Reading, window: int, logits: Floats) -> Span:
        """The likeliest span, of the logits (L, 2) of a window's input."""
        place, before = reading.windows[window], len(reading.frame.before)
        tokens = place.stop - place.start
        own = np.concatenate([logits[:1], logits[before : before + tokens]])
        none, *_ = scores = softmax(own, axis=0)
        starts, ends = scores[1:].T
        longest = min(self._longest, tokens)
        following = np.lib.stride_tricks.sliding_window_view(
            np.append(ends, np.zeros(longest - 1, np.float32)), longest
        )
        products = starts[:, None] * following  # of a start and the tokens from it on
        first, more = np.unravel_index(int(products.argmax()), products.shape)
        return Span(
            first=place.start + int(first),
            last=place.start + int(first + more),
            score=float(products[first, more]),
            none_score=float(none.prod()),
        )

    def finish(self, results: Sequence[Reading | None]) -> list[pa.Array]:
        """The columns, one answer for each text; those of no result mean nothing."""
        rows = [self._answer(result) if result else (None, None, None, None) for result in results]
        return [pa.array([row[index] for row in rows], kind) for index, kind in enumerate(answer_columns().types)]

    def _answer(self, reading: Reading) -> tuple[str | None, float | None, int | None, int | None]:
        best = max(reading.outputs, key=lambda span: span.score)
        none_score = min(span.none_score for span in reading.outputs)
        if self._may_be_none and none_score > best.score:
            return None, none_score, None, None
        start, end = widen(reading, best)
        return reading.text[start:end], best.score, start, end


def widen(reading: Reading, span: Span) -> tuple[int, int]:
    """The characters of the whole words that a span begins and ends in."""
    words, offsets = reading.tokens.words, reading.tokens.offsets
    first = np.searchsorted(words, words[span.first], "left")
    last = np.searchsorted(words, words[span.last], "right") - 1
    return int(offsets[first, 0]), int(offsets[last, 1])
