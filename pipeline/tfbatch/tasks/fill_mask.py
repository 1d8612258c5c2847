"""The words that a model puts in the place of each mask of a text (BERT, Devlin et al., 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tfbatch.batches import Feeds, Indices, Window, Work
from tfbatch.batching.cells import keep_valid
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.results import Floats
from tfbatch.runtimes.top import Top
from tfbatch.tasks._text import TextTask
from tfbatch.text.model_inputs import Inputs, count_rows, distinct_texts
from tfbatch.text.tokenizer import Tokenizer

NO_MASK = "no_mask: the text has no mask, or none in the tokens that are read"
CANDIDATE = pa.struct([("token", pa.string()), ("score", pa.float32())])


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The best tokens for one mask: ids (K,) and their probabilities (K,), best first."""

    ids: Indices
    scores: Floats


class FillMask(TextTask):
    """An input for each mask; a result is the list of a text's `Candidates`, mask by mask."""

    side_columns: ClassVar[dict[str, str]] = {}
    options: ClassVar[tuple[str, ...]] = ("max_length", "top_k")
    window_rows: ClassVar[int] = 512

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column, self._bundle = column, bundle
        self._tokenizer = Tokenizer(bundle, config.max_length)
        self._mask = bundle.setting("mask_token_id")
        self._asked = config.top_k
        self.top = Top(min(config.top_k or 1, bundle.setting("vocabulary")))

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        """`predicted_tokens` and `predicted_scores`, an entry a mask; with --top-k also `candidates`, the
        best K of each mask, best first."""
        fields = [
            pa.field("predicted_tokens", pa.list_(pa.string())),
            pa.field("predicted_scores", pa.list_(pa.float32())),
        ]
        if config.top_k:
            fields.append(pa.field("candidates", pa.list_(pa.list_(CANDIDATE))))
        return pa.schema(fields)

    def prepare(self, window: Window) -> Work:
        texts, result_of_row, errors = distinct_texts(window.rows.column(self._column))
        encoded = self._tokenizer.encode(texts)
        masks = [np.flatnonzero(ids == self._mask) for ids in encoded.ids]
        without = {index: NO_MASK for index, found in enumerate(masks) if not len(found)}
        truncated = count_rows(encoded.is_cut, result_of_row)
        kept, result_of_row, errors = keep_valid(
            list(zip(encoded.ids, masks, strict=True)), without, result_of_row, errors
        )
        result_of_input = np.repeat(np.arange(len(kept)), [len(found) for _, found in kept])
        slot_of_input = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(found)) for _, found in kept)])
        positions = np.concatenate([np.zeros(0, np.int64), *(found for _, found in kept)])
        inputs = Inputs([ids for ids, _ in kept], None, self._bundle)
        results: list[Any] = [[None] * len(found) for _, found in kept]

        def collate(indices: Indices, length: int) -> Feeds:
            return {**inputs.collate(result_of_input[indices], length), "positions": positions[indices]}

        def receive(indices: Indices, outputs: Floats) -> None:
            for index, row in zip(indices.tolist(), outputs, strict=True):
                ids, scores = self.top.read(row)
                results[result_of_input[index]][slot_of_input[index]] = Candidates(ids=ids, scores=scores)

        return Work(
            lengths=inputs.lengths[result_of_input],
            groups=np.zeros(len(positions), np.int64),
            result_of_input=result_of_input,
            result_of_row=result_of_row,
            results=results,
            errors=errors,
            collate=collate,
            receive=receive,
            truncated=truncated,
        )

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        masks = [result or [] for result in results]
        firsts = [[found.ids[0] for found in row] for row in masks]
        columns = [
            pa.array([[self._tokenizer.word(token) for token in row] for row in firsts], pa.list_(pa.string())),
            pa.array([[found.scores[0] for found in row] for row in masks], pa.list_(pa.float32())),
        ]
        if self._asked:
            listed = [[self._listed(found) for found in row] for row in masks]
            columns.append(pa.array(listed, pa.list_(pa.list_(CANDIDATE))))
        return columns

    def _listed(self, found: Candidates) -> list[dict[str, Any]]:
        pairs = zip(found.ids, found.scores, strict=True)
        return [{"token": self._tokenizer.word(token), "score": score} for token, score in pairs]


TASK = FillMask
