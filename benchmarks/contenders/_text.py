"""What contenders written by hand do with texts: token ids, and batches of like length."""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from benchmarks.contenders import Columns
from benchmarks.contenders._columns import labelled, labels_of
from benchmarks.workloads import Model

MAX_LENGTH = 512


def load_tokenizer(model: Model) -> Tokenizer:
    """The Rust tokenizer itself: twice as fast as a call of transformers' with padding."""
    tokenizer = Tokenizer.from_file(str(model.checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length(model))
    return tokenizer


def max_length(model: Model) -> int:
    """Tokens that texts are cut at: what a checkpoint for embeddings says, else what the models here read at most."""
    file = model.checkpoint / "sentence_bert_config.json"
    if not file.is_file():
        return MAX_LENGTH
    kept: int = json.loads(file.read_text(encoding="utf-8"))["max_seq_length"]
    return kept


def encode(tokenizer: Tokenizer, rows: pa.Table) -> list[list[int]]:
    return [found.ids for found in tokenizer.encode_batch_fast(rows["text"].to_pylist())]


def pad(ids: list[list[int]], length: int = 0) -> dict[str, np.ndarray]:
    """Model inputs (rows, the longest or more), int64."""
    longest = max(map(len, ids))
    found = np.zeros((len(ids), max(longest, length)), np.int64)
    mask = np.zeros_like(found)
    for row, each in enumerate(ids):
        found[row, : len(each)] = each
        mask[row, : len(each)] = 1
    return {"input_ids": found, "attention_mask": mask, "token_type_ids": np.zeros_like(found)}


def sorted_batches(ids: list[list[int]], budget: int) -> Iterator[np.ndarray]:
    """Positions by length, longest first: rows × longest is at most the budget."""
    lengths = np.array([len(each) for each in ids])
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def scored(model: Model, ids: list[list[int]], outputs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Columns:
    """Results (positions, values) back in the rows' order."""
    results: list[np.ndarray | None] = [None] * len(ids)
    for positions, values in outputs:
        for position, value in zip(positions, values, strict=True):
            results[position] = value
    found = np.stack(results)
    return {"embedding": list(found)} if model.kind == "embedding" else labelled(found, labels_of(model))
