"""Whether contenders gave the same results, row by row."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.workloads import Workload

LEAST_COSINE = 0.9999
MOST_GREY_LEVELS = 1  # between pixels


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """`text` is for the table; `same` is what fp32 must have."""

    text: str
    same: bool


def results(path: Path, workload: Workload) -> pa.ChunkedArray:
    """The result column in the order of the rows' ids; Ray does not keep theirs."""
    table = pq.read_table(path, columns=["id", workload.result]).sort_by("id")
    if table["id"].to_pylist() != list(range(table.num_rows)):
        raise ValueError(f"{path} does not hold each row once")
    return table[workload.result].combine_chunks()


def agreement(path: Path, reference: Path, workload: Workload) -> Agreement:
    """Compare an output with the reference's."""
    found, wanted = results(path, workload), results(reference, workload)
    if len(found) != len(wanted):
        return Agreement(text=f"{len(found)} rows of {len(wanted)}", same=False)
    if workload.result == "predicted_label":
        return labels(found.to_pylist(), wanted.to_pylist())
    if workload.result == "embedding":
        return cosines(found.to_pylist(), wanted.to_pylist())
    return pixels(found.to_pylist(), wanted.to_pylist())


def labels(found: list[str], wanted: list[str]) -> Agreement:
    others = sum(a != b or a is None for a, b in zip(found, wanted, strict=True))
    return Agreement(text=f"{others:,} of {len(found):,} labels differ" if others else "same labels", same=not others)


def cosines(found: list[list[float]], wanted: list[list[float]]) -> Agreement:
    a, b = np.array(found), np.array(wanted)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return Agreement(text=f"cosine {cosine.min():.5f} at least", same=bool(cosine.min() >= LEAST_COSINE))


def pixels(found: list[dict[str, bytes]], wanted: list[dict[str, bytes]]) -> Agreement:
    worst = max(difference(a["bytes"], b["bytes"]) for a, b in zip(found, wanted, strict=True))
    return Agreement(text=f"pixels within {worst:.0f}", same=worst <= MOST_GREY_LEVELS)


def difference(found: bytes, wanted: bytes) -> float:
    """The largest between two pictures, in grey levels; infinite where sizes differ."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (found, wanted))
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
