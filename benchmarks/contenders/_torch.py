"""PyTorch by hand: `sdpa`, `inference_mode`, texts sorted by length into token-budgeted batches.

Each thread computes batches of its own with one thread inside the operators, which on few cores is
faster than all threads inside each operator; no padding mask where nothing is padded.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

BUDGET = 512  # tokens of a batch: the best of 256 to 8,192, on reviews and on mixed lengths, in fp32 and bf16
CLASSES = {
    "text": "AutoModelForSequenceClassification",
    "embedding": "AutoModel",
    "image": "AutoModelForImageClassification",
}


def load_torch(model: Model, threads: int, dtype: str) -> Score:
    """A checkpoint in a dtype, as a function of rows."""
    import torch
    import transformers

    torch.set_num_threads(1)
    network = getattr(transformers, CLASSES[model.kind]).from_pretrained(
        model.checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    network.eval()
    if model.kind == "image":
        from benchmarks.contenders._pictures import classifier

        def logits(pictures: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(pictures).to(network.dtype)).logits.float().numpy()

        return classifier(model, threads, logits)
    return text_score(model, threads, pooled(network) if model.kind == "embedding" else classified(network))


def classified(network: Any) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Model inputs to logits."""
    import torch

    def compute(feeds: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return network(**tensors(feeds)).logits.float().numpy()

    return compute


def pooled(network: Any) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Model inputs to the mean of the last hidden states, of length one."""
    import torch

    def compute(feeds: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            hidden = network(**tensors(feeds)).last_hidden_state.float()
            mask = torch.from_numpy(feeds["attention_mask"])[:, :, None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean).numpy()

    return compute


def tensors(feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    is_padded = not feeds["attention_mask"].all()
    return {name: torch.from_numpy(array) for name, array in feeds.items() if is_padded or name != "attention_mask"}


def text_score(model: Model, threads: int, compute: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Score:
    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored, sorted_batches

    tokenizer = load_tokenizer(model)

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        batches = list(sorted_batches(ids, BUDGET))
        with ThreadPoolExecutor(threads) as pool:
            outputs = pool.map(lambda batch: compute(pad([ids[row] for row in batch])), batches)
            return scored(model, ids, zip(batches, outputs, strict=True))

    return score
