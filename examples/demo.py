"""The demo: the default models over real rows, through the same commands a user types."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from data import BUILD, ROOT
from rich.console import Console
from rich.table import Table
from tfbatch.clock import per_second
from tfbatch.errors import BadConfiguration

console = Console(width=110, highlight=False)


def score(name: str, *options: str) -> tuple[pa.Table, dict[str, Any]]:
    """Run tfbatch over a demo file; returns all output rows and the summary of the run that made them."""
    command = ["tfbatch", "run", f"build/data/{name}.parquet", *options]
    console.print(f"\n$ {' '.join(command)}", style="bold")
    executable = Path(sys.executable).with_name("tfbatch")
    done = subprocess.run([executable, *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if (
        done.returncode == BadConfiguration.exit_code and "--overwrite" not in options
    ):  # an output of older data or an older model
        return score(name, *options, "--overwrite")
    done.check_returncode()
    console.print(done.stdout.strip(), style="dim", soft_wrap=True)
    output = ROOT / json.loads(done.stdout.splitlines()[-1])["output"]
    summary = json.loads((output / "_SUCCESS").read_bytes())
    return pa.concat_tables([pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))]), summary


def accuracy(rows: pa.Table) -> tuple[float, int]:
    """Share of labelled rows that were given their label, and how many have one."""
    labelled = rows.filter(pc.is_valid(rows["label"]))
    return pc.mean(pc.equal(labelled["label"], labelled["predicted_label"]).cast(pa.int8())).as_py(), len(labelled)


def show(title: str, rows: pa.Table, columns: list[str]) -> None:
    """A few rows."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, max_width=52, no_wrap=True)
    for row in rows.select(columns).to_pylist():
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def throughput(summary: dict[str, Any]) -> str:
    return (
        f"{summary['rows']:,} rows in {summary['seconds']:.1f} s on {summary['device']} "
        f"({per_second(summary['rows_per_second'])} rows/s, {summary['peak_memory_bytes'] / 1e6:,.0f} MB at most), "
        f"in {ROOT / summary['output']}"
    )


def make_pictures(name: str, *options: str) -> None:
    """Run a model that makes pictures, and say where to look at them."""
    _, summary = score(name, *options)
    console.print(throughput(summary))
    console.print(f"look at {ROOT / summary['output'] / '_tfbatch' / 'contact_sheet.png'}", style="bold")


def main() -> None:
    """Score, say how well, and make pictures."""
    reviews, summary = score("reviews", "--input-column", "text")
    show(
        "sentiment (BERT): five held-out rows",
        reviews.slice(0, 5),
        ["text", "label", "predicted_label", "predicted_score"],
    )
    for source in sorted(reviews["source"].unique().to_pylist()):
        share, rows = accuracy(reviews.filter(pc.equal(reviews["source"].cast(pa.string()), source)))
        console.print(f"sentiment accuracy, {source}: {share:.1%} of {rows:,} held-out sentences")
    console.print(throughput(summary))

    pictures, summary = score("fashion")
    show("fashion (ViT): five test pictures", pictures.slice(0, 5), ["label", "predicted_label", "predicted_score"])
    share, rows = accuracy(pictures)
    console.print(f"fashion accuracy: {share:.1%} of {rows:,} test pictures (a sample: the model card has all 10,000)")
    console.print(throughput(summary))
    make_pictures("photographs", "--task", "image-to-image", "--contact-sheet", "6")
    make_pictures("torn", "--task", "masked-im", "--mask-column", "mask", "--keep-mask", "--contact-sheet", "12")
    console.print(f"\ninput: {BUILD / 'data'}   bundles: {ROOT / 'models'}")


if __name__ == "__main__":
    main()
