"""What the first rows of an input say of its texts and pictures. Their cells are measured and never shown."""

from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfbatch.batches import NO_RESULT
from tfbatch.batching.cells import distinct, is_image, is_text
from tfbatch.pictures.decoders import DECODERS
from tfbatch.plan import Plan
from tfbatch.reader import read_windows
from tfbatch.text.model_inputs import decode
from tfbatch.text.tokenizer import Tokenizer

ENOUGH = 64 << 20  # bytes of rows, where they are not as many as were asked for before
WINDOW = 16 << 20

Record = dict[str, Any]


def sample_columns(plan: Plan, source: Tokenizer | None) -> dict[str, Record]:
    """Of each column of texts or pictures, how large the rows of a plan are, as far as ENOUGH goes; in tokens
    too where there is a tokenizer.

    Raises:
        BadInput, TryAgain: see `read_windows`.
    """
    fields = [field for field in plan.schema if is_text(field.type) or is_image(field.type)]
    columns = [field.name for field in fields if plan.schema.names.count(field.name) == 1]
    if not columns:
        return {}
    tables: list[pa.Table] = []
    with closing(read_windows(plan, plan.parts, columns, plan.rows or 1, WINDOW)) as windows:
        for window in windows:
            tables.append(window.rows)
            if sum(table.nbytes for table in tables) >= ENOUGH:
                break
    rows = pa.concat_tables(tables).select(columns)
    return {name: sample(rows[name], source) for name in columns}


def sample(cells: pa.ChunkedArray, source: Tokenizer | None) -> Record:
    """How many cells were looked at, the share of them that is null, and what the others measure."""
    values, value_of_row, _ = distinct(cells)
    places = value_of_row[value_of_row != NO_RESULT]
    nulls = 1 - len(places) / len(cells) if len(cells) else 0.0
    measured = measure_texts(values, places, source) if is_text(cells.type) else measure_pictures(values, places)
    return {"rows": len(cells), "null_share": round(nulls, 4), **measured}


def measure_texts(values: pa.Array, places: npt.NDArray[np.int64], source: Tokenizer | None) -> Record:
    """Characters of each text and, by a tokenizer, its tokens as they would be cut."""
    texts, reasons = decode(values)
    readable = places[~np.isin(places, list(reasons))]
    characters = np.array([len(text) for text in texts], np.int64)
    record: Record = {"unreadable": len(places) - len(readable), "characters": spread(characters[readable])}
    if source is not None:
        tokens = np.array([len(ids) for ids in source.encode(texts).ids], np.int64)[readable]
        at_limit = float((tokens == source.max_length).mean()) if len(tokens) else 0.0
        record["tokens"] = spread(tokens) | {"limit": source.max_length, "share_at_limit": round(at_limit, 4)}
    return record


def measure_pictures(values: pa.Array, places: npt.NDArray[np.int64]) -> Record:
    """Width and height of each picture by its header."""
    sizes = np.array(list(DECODERS.measure_all(value.as_buffer() for value in values)), np.int64).reshape(-1, 2)[places]
    readable = sizes[sizes.all(axis=1)]
    return {"unreadable": len(sizes) - len(readable), "width": spread(readable[:, 0]), "height": spread(readable[:, 1])}


def spread(values: npt.NDArray[np.int64]) -> Record:
    """Median and maximum; None of nothing."""
    if not len(values):
        return {"median": None, "max": None}
    return {"median": int(np.median(values)), "max": int(values.max())}
