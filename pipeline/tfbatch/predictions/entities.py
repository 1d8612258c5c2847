"""Logits of a text's tokens to the entities that they name, each with its place in the text.

Tokens become entities as in `transformers.pipeline`'s `aggregation_strategy`, over the whole text at
once: an entity that reaches from one window into the next is one entity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfbatch.batches import Indices
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.scores import softmax
from tfbatch.results import Floats
from tfbatch.text.readings import Reading
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Flags

PLACE = [("start", pa.int32()), ("end", pa.int32())]
ENTITY = pa.struct([("entity", pa.string()), ("score", pa.float32()), ("word", pa.string()), *PLACE])
NOTHING = "O"  # the label of tokens that belong to no entity


@dataclass(frozen=True, kw_only=True)
class Units:
    """N tokens, words or entities of a text: for each the index of its label, a score, and where it lies
    in characters, the end exclusive."""

    labels: Indices
    scores: Floats
    starts: Indices
    ends: Indices

    def only(self, kept: Flags) -> "Units":
        return Units(labels=self.labels[kept], scores=self.scores[kept], starts=self.starts[kept], ends=self.ends[kept])


def entity_columns() -> pa.Schema:
    """`entities`, in the order of the text."""
    return pa.schema([pa.field("entities", pa.list_(ENTITY))])


class Entities:
    """Fills `entity_columns`.

    `word` is the text from start to end, where the pipeline puts tokens together again.
    """

    def __init__(self, bundle: Bundle, config: RunConfig, tokenizer: Tokenizer) -> None:
        labels = bundle.named_labels()
        self._how = config.aggregation
        self._sizes, self._unknown = tokenizer.written_sizes(), tokenizer.unknown()
        tags = [label[2:] if label.startswith(("B-", "I-")) else label for label in labels]
        self._tags = np.array([tags.index(tag) for tag in tags], np.int64)
        self._is_first = np.array([label.startswith("B-") for label in labels], bool)
        names = labels if config.aggregation == "none" else [label.split("-", 1)[-1] for label in labels]
        self._names, self._counts = pa.array(names, pa.string()), np.array([name != NOTHING for name in names], bool)

    def keep(self, reading: Reading, window: int, logits: Floats) -> Floats:
        """The scores (L, labels) of the tokens that a window speaks for, of the logits of its input."""
        owned, first = reading.owned(window), len(reading.frame.before) - reading.windows[window].start
        own = logits[owned.start + first : owned.stop + first]
        return softmax(own, axis=1)

    def finish(self, results: Sequence[Reading | None]) -> list[pa.Array]:
        """The column, one list for each text; that of no result means nothing."""
        found = [self._find(result) if result else None for result in results]
        ends = np.cumsum([0, *(len(units.labels) if units else 0 for units in found)])
        words = [
            result.text[start:end]
            for result, units in zip(results, found, strict=True)
            if result and units
            for start, end in zip(units.starts.tolist(), units.ends.tolist(), strict=True)
        ]
        labels, scores, starts, stops = (
            np.concatenate([np.zeros(0, kind), *(getattr(units, name) for units in found if units)])
            for name, kind in (("labels", np.int64), ("scores", np.float32), ("starts", np.int64), ("ends", np.int64))
        )
        values = [self._names.take(pa.array(labels)), pa.array(scores, pa.float32()), pa.array(words, pa.string()),
                  pa.array(starts, pa.int32()), pa.array(stops, pa.int32())]  # fmt: skip
        entities = pa.StructArray.from_arrays(values, fields=list(ENTITY))
        return [pa.ListArray.from_arrays(pa.array(ends, pa.int32()), entities)]

    def _find(self, reading: Reading) -> Units | None:
        """The entities of a text."""
        scores = np.concatenate(reading.outputs)
        if not len(scores):
            return None
        if self._how in ("none", "simple"):
            starts, ends = reading.tokens.offsets.T
            units = Units(labels=scores.argmax(1), scores=scores.max(1), starts=starts, ends=ends)
        else:
            units = self._words(reading, scores)
        if self._how != "none":
            units = self._group(units)
        return units.only(self._counts[units.labels])

    def _words(self, reading: Reading, scores: Floats) -> Units:
        """Whole words, from the scores (T, labels) of their tokens."""
        begins = self._begins_word(reading)
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(begins)) - 1
        if self._how == "average":
            scores = mean(scores, first)
        elif self._how == "max":
            by_word_then_score = np.lexsort((-scores.max(1), begins.cumsum()))
            scores = scores[by_word_then_score[first]]
        else:
            scores = scores[first]
        offsets = reading.tokens.offsets
        return Units(labels=scores.argmax(1), scores=scores.max(1), starts=offsets[first, 0], ends=offsets[last, 1])

    def _begins_word(self, reading: Reading) -> Flags:
        """Which tokens (T,) do not go on with the word before them.

        As the pipeline has it: in a vocabulary that marks how words go on, those that are written
        as long as they are in the text; in others those beside a blank.
        """
        ids, (starts, ends) = reading.tokens.ids, reading.tokens.offsets.T
        if self._sizes is None:
            blank = np.frombuffer(f"{reading.text}.".encode("utf-32-le"), np.uint32) == ord(" ")
            begins = (starts == 0) | blank[np.maximum(starts - 1, 0)] | blank[starts]
        else:
            begins = self._sizes[ids] == ends - starts
        begins |= ids == self._unknown
        begins[0] = True
        found: Flags = begins
        return found

    def _group(self, units: Units) -> Units:
        """Neighbours of one tag as one, but where a label B- begins another; its score is their mean."""
        tags = self._tags[units.labels]
        begins = np.append(True, (tags[1:] != tags[:-1]) | self._is_first[units.labels[1:]])
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(begins)) - 1
        scores = mean(units.scores, first)
        return Units(labels=units.labels[first], scores=scores, starts=units.starts[first], ends=units.ends[last])


def mean(scores: Floats, first: Indices) -> Floats:
    """Of the scores (T, ...) from each of `first` (N,) up to the next."""
    counts = np.diff(np.append(first, len(scores))).reshape(-1, *[1] * (scores.ndim - 1))
    means: Floats = (np.add.reduceat(scores, first) / counts).astype(np.float32)
    return means
