"""`python -m benchmarks.gpu_labels`: how many labels of 10,000 reviews fp16 on a GPU changes, of the default model.

What is compared with is the same model in fp32 on the processor, which is scored once for a bundle.
"""

import json
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import input_of
from benchmarks.race import output_of, remove
from benchmarks.workloads import BY_NAME, HERE, ROOT

BUNDLE = HERE / "bundles" / "gpu-sentiment"


def score(rows: Path, output: Path, device: str, precision: str) -> pa.Table:
    """All rows of an output, which a finished one of the same bundle and rows is; of others tfbatch refuses it."""
    words = [sys.executable, "-m", "tfbatch", "run", rows, "-m", BUNDLE, "-o", output, "--keep-columns", "id"]
    output_of([*map(str, words), "--device", device, "--precision", precision, "--quiet"])
    return pa.concat_tables([pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))])


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cpu tries out whether it runs.")
@click.option("--rows", type=click.IntRange(min=1), default=10_000, show_default=True)
def main(device: str, rows: int) -> None:
    """Compare labels and scores, and print a line of JSON."""
    if not (BUNDLE / "model_fp16.onnx").is_file():
        words = [sys.executable, "-m", "tfbatch", "export", ROOT / "build/checkpoints/sentiment", "-o", BUNDLE]
        output_of([*map(str, words), "--fp16", "--overwrite"])
    file = input_of(BY_NAME["reviews"], rows)
    exact = score(file, HERE / "outputs" / f"gpu-labels-{rows}-fp32", "cpu", "fp32")
    output = HERE / "outputs" / f"gpu-labels-{rows}-{device}-fp16"
    remove(output)
    found = score(file, output, device, "fp16")
    same = np.array(exact["predicted_label"]) == np.array(found["predicted_label"])
    apart = np.abs(np.array(exact["predicted_score"]) - np.array(found["predicted_score"])).max()
    print(json.dumps({"rows": len(same), "same_labels": float(same.mean()), "scores_apart": float(apart)}))


if __name__ == "__main__":
    main()
