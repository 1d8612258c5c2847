"""`python -m benchmarks.startup`: what a run over 100 rows takes, whole process, with a tiny model."""

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.race import output_of
from benchmarks.workloads import HERE

FOLDER = HERE / "startup"
WORDS = ["good", "bad", "film", "very", "not", "a", "is", "it", "the", "was", "fine", "great", "poor"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROWS, RUNS = 100, 9


def make_checkpoint(folder: Path) -> None:
    """A BERT of 2 layers, 32 wide, that knows a few words."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(0)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


@click.command()
def main() -> None:
    """What a run over 100 rows takes with a tiny model: the median and the most of several, whole process."""
    bundle, rows = FOLDER / "bundle", FOLDER / "rows.parquet"
    if not bundle.is_dir():
        make_checkpoint(FOLDER / "checkpoint")
        output_of([sys.executable, "-m", "tfbatch", "export", str(FOLDER / "checkpoint"), "-o", str(bundle)])
    words = random.Random(0)
    texts = [" ".join(words.choices(WORDS, k=words.randint(1, 30))) for _ in range(ROWS)]
    pq.write_table(pa.table({"text": texts}), rows)
    command = [sys.executable, "-m", "tfbatch", "run", str(rows), "-m", str(bundle), "-o", str(FOLDER / "out")]
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([*command, "--overwrite", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    print(
        json.dumps(
            {"rows": ROWS, "runs": RUNS, "median": round(statistics.median(seconds), 3), "most": round(max(seconds), 3)}
        )
    )


if __name__ == "__main__":
    main()
