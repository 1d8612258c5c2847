"""Cells of text to model inputs: one for each text or pair of texts, or several windows of a long text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tfbatch.batches import Feeds, Indices, Work, one_result_each
from tfbatch.batching.cells import distinct, distinct_pairs, keep_valid
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.results import Floats, Rows
from tfbatch.text.pairs import Pairs
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Encoded, Flags, Ids

INVALID_UTF8 = "invalid_utf8: the text is not valid UTF-8"


class Inputs:
    """The token ids of I inputs, and the type of each token where they are not all of the first, ready to be padded
    into batches. `lengths` (I,) are how many; `names` the inputs of the graph that reads them, where it is not the
    bundle's main one."""

    def __init__(
        self, ids: Sequence[Ids], types: Sequence[Indices] | None, bundle: Bundle, names: list[str] | None = None
    ) -> None:
        self._names = bundle.manifest.inputs if names is None else names
        self._pad = bundle.setting("pad_token_id")
        self.lengths = np.array([len(one) for one in ids], np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._ids = flat(ids)
        self._types = None if types is None else flat(types)

    def collate(self, inputs: Indices, length: int) -> Feeds:
        """Some inputs (B,) as arrays (B, L) int64, by the names of the graph's inputs."""
        columns = np.arange(length)
        mask = columns < self.lengths[inputs][:, None]
        places = (self._starts[inputs][:, None] + columns)[mask]
        ids, types = np.full(mask.shape, self._pad, np.int64), np.zeros(mask.shape, np.int64)
        ids[mask] = self._ids[places]
        if self._types is not None:
            types[mask] = self._types[places]
        feeds: Feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types}
        return {name: feeds[name] for name in self._names if name in feeds}


class TextInput:
    """Turns a text column, or two of them as pairs, into model inputs.

    A text over the model's length is cut, or, with `--overflow stride`, read in windows whose outputs
    are averaged, each by its number of tokens; see `sum_windows`.
    """

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        self._bundle = bundle
        self._tokenizer = Tokenizer(bundle, config.max_length)
        self._stride = config.stride
        self._in_windows = config.overflow == "stride"
        self._pairs = None if config.text_pair_column is None else Pairs(self._tokenizer)
        if self._in_windows:
            self._tokenizer.check_stride(self._tokenizer.frame(), self._stride)
        elif self._stride is not None:
            raise UsageError("--stride is for --overflow stride; without it a long text is cut")

    def prepare(self, cells: pa.ChunkedArray, seconds: pa.ChunkedArray | None = None) -> Work:
        """Tokenize each distinct text or pair of texts; null and invalid UTF-8 are row errors."""
        texts, result_of_row, errors = distinct_texts(cells)
        if seconds is not None:
            others, other_of_row, more = distinct_texts(seconds)
            left, right, result_of_row = distinct_pairs(result_of_row, other_of_row)
            pairs = [texts[index] for index in left], [others[index] for index in right]
            encoded = (self._pairs or Pairs(self._tokenizer)).encode(*pairs)
            return self._one_input_each(encoded, result_of_row, more | errors)
        if self._in_windows:
            return self._windows(texts, result_of_row, errors)
        return self._one_input_each(self._tokenizer.encode(texts), result_of_row, errors)

    def _one_input_each(self, encoded: Encoded, result_of_row: Indices, errors: dict[int, str]) -> Work:
        inputs = Inputs(encoded.ids, encoded.types, self._bundle)
        truncated = count_rows(encoded.is_cut, result_of_row)
        return one_result_each(inputs.lengths, result_of_row, errors, inputs.collate, truncated=truncated)

    def _windows(self, texts: list[str], result_of_row: Indices, errors: dict[int, str]) -> Work:
        """Several inputs a text; a result is the list of its windows' outputs, each times its weight."""
        frame, encoded, result_of_input = self._tokenizer.frame(), [], []
        results: list[Any] = []
        slots: list[int] = []
        weights: list[float] = []
        for index, found in enumerate(self._tokenizer.read(texts)):
            tokens = found.ids
            windows = self._tokenizer.windows(len(tokens), frame, self._stride)
            encoded += [frame.around(tokens[window]) for window in windows]
            sizes = np.array([len(tokens[window]) for window in windows], np.float64)
            weights += (sizes / sizes.sum()).tolist() if sizes.any() else [1.0]
            slots += range(len(windows))
            result_of_input += [index] * len(windows)
            results.append([None] * len(windows))
        inputs = Inputs(encoded, None, self._bundle)

        def receive(indices: Indices, outputs: Floats) -> None:
            for index, output in zip(indices.tolist(), outputs, strict=True):
                results[result_of_input[index]][slots[index]] = output * np.float32(weights[index])

        return Work(
            lengths=inputs.lengths,
            groups=np.zeros(len(encoded), np.int64),
            result_of_input=np.array(result_of_input, np.int64),
            result_of_row=result_of_row,
            results=results,
            errors=errors,
            collate=inputs.collate,
            receive=receive,
        )


def count_rows(is_cut: Flags, result_of_row: Indices) -> int:
    """How many rows (R,) have a result of which that is true."""
    return int(np.append(is_cut, False)[result_of_row].sum())  # NO_RESULT takes the last


def flat(inputs: Sequence[Ids]) -> Ids:
    """The tokens of N inputs, or their types, one input after the other: (tokens,) int32."""
    return np.concatenate([np.zeros(0, np.int32), *inputs], dtype=np.int32)


def sum_windows(results: Sequence[Any]) -> Sequence[Floats | None]:
    """The outputs that results of `TextInput` stand for: their own, or the means of their windows'."""
    if isinstance(results, Rows):
        return results
    return [None if windows is None else np.sum(windows, axis=0, dtype=np.float32) for windows in results]


def distinct_texts(cells: pa.ChunkedArray) -> tuple[list[str], Indices, dict[int, str]]:
    """The distinct valid texts of a column, for each row its text's index or NO_RESULT, and the reason
    of each row that has none."""
    values, result_of_row, errors = distinct(cells)
    texts, reasons = decode(values)
    return keep_valid(texts, reasons, result_of_row, errors)


def decode(values: pa.Array) -> tuple[list[str], dict[int, str]]:
    """Python strings, and a reason for each value that is not UTF-8 (Parquet does not promise it)."""
    try:
        return values.to_pylist(), {}
    except UnicodeDecodeError:
        texts, reasons = [], {}
        for index, data in enumerate(values.cast(pa.large_binary()).to_pylist()):
            try:
                texts.append(data.decode())
            except UnicodeDecodeError:
                texts.append("")
                reasons[index] = INVALID_UTF8
        return texts, reasons
