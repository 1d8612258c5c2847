"""PyTorch by hand for texts: sorted by length, token-budgeted batches, `sdpa`, `inference_mode`.

Each thread computes batches of its own with one thread inside the operators, which on few cores is
faster than all threads inside each operator; no padding mask where nothing is padded.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

BUDGET = 512  # tokens of a batch: the best of 256 to 8,192, on reviews and on mixed lengths, in fp32 and bf16


def load_text(model: Model, threads: int, dtype: str) -> Score:
    import torch
    from transformers import AutoModelForSequenceClassification

    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored, sorted_batches

    torch.set_num_threads(1)
    tokenizer = load_tokenizer(model)
    network = AutoModelForSequenceClassification.from_pretrained(
        model.checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()

    def compute(ids: list[list[int]]) -> np.ndarray:
        feeds = pad(ids)
        if feeds["attention_mask"].all():
            del feeds["attention_mask"]
        with torch.inference_mode():
            return network(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.float().numpy()

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        batches = list(sorted_batches(ids, BUDGET))
        with ThreadPoolExecutor(threads) as pool:
            outputs = pool.map(lambda batch: compute([ids[row] for row in batch]), batches)
            return scored(model, ids, zip(batches, outputs, strict=True))

    return score
