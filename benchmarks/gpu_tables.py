"""Tables of what `benchmarks.gpu` has measured."""

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = (
    ("model, shape", "{name}"), ("tfbatch rows/s", "{tfbatch:,.0f}"), ("torch sdpa", "{torch:.2f}x"),
    ("torch.compile", "{compiled:.2f}x"), ("TFLOP/s", "{tflops:,.1f}"), ("of GEMM peak", "{share:.0%}"),
    ("attention kernels", "{kernels}"),
)  # fmt: skip


def show(name: str, peak: float, rows: list[dict[str, Any]]) -> None:
    """A table of models alone."""
    table = Table(title=f"{name}, {peak / 1e12:,.1f} TFLOP/s")
    for heading, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(shown.format(**row) for _, shown in COLUMNS))
    Console(stderr=True).print(table)


def show_jobs(jobs: dict[str, dict[str, Any]]) -> None:
    """A table of whole jobs."""
    table = Table(title="whole jobs")
    for heading in ("rows", "rows/s", "a core", "of the session", "torch.compile", "GPU busy", "padding", "bottleneck"):
        table.add_column(heading, justify="right")
    for name, job in jobs.items():
        ratios = [f"{job[key]:.2f}x" if key in job else "" for key in ("over_session", "over_torch_compile")]
        busy = "" if job["gpu_busy_percent"] is None else f"{job['gpu_busy_percent']:.0f} %"
        rates = [f"{job[key]:,.0f}" for key in ("rows_per_second", "rows_per_second_and_core")]
        table.add_row(name, *rates, *ratios, busy, f"{job['padding_ratio']:.2f}", job["bottleneck"])
    Console(stderr=True).print(table)
