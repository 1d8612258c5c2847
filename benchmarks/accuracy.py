"""`python -m benchmarks.accuracy`: what reduced precision costs, on rows that no model was trained on.

The default models over the held-out sentences and the test pictures of the repository, by each device
and precision: accuracy, labels that differ from fp32's, and how long it took.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.able import is_able
from benchmarks.race import output_of, remove
from benchmarks.workloads import HERE, ROOT

MODELS = {"sentiment": ("reviews", "text"), "fashion": ("fashion", "image")}
WAYS = (("cpu", "fp32"), ("cpu", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))


def score(model: str, device: str, precision: str) -> tuple[pa.Table, dict[str, Any]]:
    """All output rows, and the summary."""
    name, column = MODELS[model]
    output = HERE / "outputs" / f"accuracy-{model}-{device}-{precision}"
    remove(output)
    words = [sys.executable, "-m", "tfbatch", "run", ROOT / f"build/data/{name}.parquet", "-m", ROOT / "models" / model]
    options = ["-o", output, "--input-column", column, "--device", device, "--precision", precision, "--quiet"]
    summary = json.loads(output_of([*map(str, words), *map(str, options)]).splitlines()[-1])
    parts: list[Path] = sorted(output.glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]), summary


def main() -> None:
    """Run every way that this processor has in turn, and print a table and a line of JSON."""
    ways = [way for way in WAYS if is_able(*way)]
    left_out = ", ".join(f"{device} {precision}" for device, precision in WAYS if (device, precision) not in ways)
    caption = f"left out, for this processor has no instructions for them: {left_out}" if left_out else ""
    table = Table(title="default models on rows that were held out", caption=caption)
    for heading in (
        "model",
        "device",
        "precision",
        "rows with a label",
        "accuracy",
        "other labels than fp32",
        "rows/s",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "device", "precision") else "right")
    found = []
    for model in MODELS:
        exact = None
        for device, precision in ways:
            rows, summary = score(model, device, precision)
            exact = rows["predicted_label"] if exact is None else exact
            changed = pc.sum(pc.not_equal(rows["predicted_label"], exact)).as_py()
            labelled = rows.filter(pc.is_valid(rows["label"]))
            right = pc.mean(pc.equal(labelled["label"], labelled["predicted_label"]).cast(pa.int8())).as_py()
            table.add_row(
                model, device, precision, f"{len(labelled):,}", f"{right:.2%}", f"{changed:,} of {len(rows):,}",
                f"{summary['rows_per_second']:,.0f}",
            )  # fmt: skip
            found.append(
                {"model": model, "device": device, "precision": precision, "accuracy": round(right, 4),
                 "rows": len(rows), "labels_changed": changed, "rows_per_second": summary["rows_per_second"]}
            )  # fmt: skip
    Console(stderr=True, width=120).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
