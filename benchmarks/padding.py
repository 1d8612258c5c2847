"""`python -m benchmarks.padding`: how much of what a device computes is padding, by texts, window and budget.

Rows are sorted by length within a window, cut into batches and padded to a multiple, as a job does it; no
model is run. What is left over 1 is the most that removing padding within a batch could gain.
"""

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from tfbatch.batches import Indices
from tfbatch.batching.cutting import cut
from tfbatch.session import Device
from tfbatch.tasks import load_task

from benchmarks.contenders._text import encode, load_tokenizer
from benchmarks.texts import documents, extended, lines, mixed, reviews
from benchmarks.workloads import SENTIMENT

ROWS = 65_536
TEXTS = {"lines": lines, "reviews": reviews, "mixed": mixed, "documents": documents}
BUDGETS = {"cpu": (512,), "cuda": (8_192, 16_384, 32_768)}


def padding_ratio(lengths: Indices, window: int, budget: int, multiple: int) -> float:
    """Tokens computed over real ones."""
    computed = 0
    for first in range(0, len(lengths), window):
        rows = lengths[first : first + window]
        computed += sum(batch.tokens for batch in cut(rows, np.zeros_like(rows), budget, multiple))
    return computed / int(lengths.sum())


def main() -> None:
    tokenizer, window = load_tokenizer(SENTIMENT), load_task("text-classification").window_rows
    table = Table("texts", "tokens a row", "device", "rows a window", "tokens a batch", "computed / real")
    for name, source in TEXTS.items():
        ids = encode(tokenizer, pa.table({"text": extended(source(), ROWS)}))
        lengths = np.array([len(each) for each in ids])
        for device in (Device(runtime="cpu"), Device(runtime="cuda")):
            for rows in sorted({window // 2, window, device.window_scale * window}):
                for budget in BUDGETS[device.runtime]:
                    ratio = padding_ratio(lengths, rows, budget, device.length_multiple)
                    shown = (f"{rows:,}", f"{budget:,}", f"{ratio:.3f}")
                    table.add_row(name, f"{lengths.mean():.1f}", device.name, *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
