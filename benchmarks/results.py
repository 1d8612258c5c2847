"""Medians and spreads of the rounds, as a table and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.agreement import Agreement
from benchmarks.race import Run
from benchmarks.workloads import HERE


@dataclass
class Result:
    """What a contender did with a workload, in all rounds."""

    name: str
    precision: str
    runs: list[Run] = field(default_factory=list)
    agreement: Agreement | None = None
    failure: str | None = None

    @property
    def is_bad(self) -> bool:
        return self.failure is not None or (
            self.precision == "fp32" and self.agreement is not None and not self.agreement.same
        )

    def spread(self, what: str) -> tuple[float, float, float]:
        """Median, least and most of a Run's field."""
        values = [getattr(run, what) for run in self.runs]
        return median(values), min(values), max(values)


def show(console: Console, title: str, results: list[Result]) -> None:
    """A table of one workload; the first contender is what the others are measured by."""
    table = Table(title=title, title_justify="left")
    for heading in ("contender", "whole process, s", "×", "work once loaded, s", "×", "memory, MB", "results"):
        table.add_column(heading, justify="left" if heading in ("contender", "results") else "right")
    reference = results[0]
    for result in results:
        if result.failure:
            table.add_row(result.name, "", "", "", "", "", "failed")
            continue
        cells = [result.name]
        for what in ("whole", "work"):
            middle, least, most = result.spread(what)
            ratio = f"{middle / reference.spread(what)[0]:.2f}" if reference.runs else ""
            cells += [f"{middle:.2f} ({least:.2f}–{most:.2f})", ratio]
        said = result.agreement.text if result.agreement else ""
        table.add_row(*cells, f"{result.spread('peak_memory')[0] / 1e6:,.0f}", said)
    console.print(table)
    for result in results:
        if result.runs:
            versions = ", ".join(f"{name} {version}" for name, version in result.runs[0].versions.items())
            console.print(f"  {result.name} ({result.precision}): {versions}", style="dim")


def record(workload: str, rows: int, threads: int, results: list[Result]) -> dict[str, Any]:
    """The same for a machine, kept in `build/benchmarks/results/`."""
    return {
        "workload": workload,
        "rows": rows,
        "threads": threads,
        "contenders": {result.name: numbers(result) for result in results},
    }


def keep(name: str, found: dict[str, Any]) -> None:
    folder = HERE / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def numbers(result: Result) -> dict[str, Any]:
    if result.failure:
        return {"precision": result.precision, "failure": result.failure}
    return {
        "precision": result.precision,
        **{what: round(result.spread(what)[0], 3) for what in ("whole", "work", "peak_memory")},
        "runs": [{key: value for key, value in asdict(run).items() if key != "versions"} for run in result.runs],
        "versions": result.runs[0].versions,
        "agreement": result.agreement.text if result.agreement else None,
    }
