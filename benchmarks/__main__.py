"""`python -m benchmarks`: every contender over every workload that it serves, in rounds.

In each round all contenders run once, so that what else the machine does falls on all of them. Exit
code 1: a contender failed, or one in fp32 gave other results than tfbatch.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from benchmarks import contenders, race, results
from benchmarks.able import is_able
from benchmarks.agreement import Agreement, agreement
from benchmarks.data import input_of
from benchmarks.models import make_bundle, make_checkpoint
from benchmarks.results import Result
from benchmarks.workloads import ALL, BY_NAME, Workload

Done = TypeVar("Done")
console = Console(stderr=True, highlight=False, width=150)


def split(_: click.Context, option: click.Parameter, value: str) -> list[str]:
    """Names between commas, or none, in an order of ours: tfbatch comes first."""
    known = list(BY_NAME) if option.name == "workloads" else contenders.names()
    asked = value.split(",") if value else []
    if unknown := [name for name in asked if name not in known]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return [name for name in known if name in asked]


@click.command()
@click.option("--workloads", callback=split, default="", help="Names between commas; default: all.")
@click.option(
    "--contenders",
    "names",
    callback=split,
    default="",
    help="Names between commas; default: all this processor can run.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), help="So many, in place of the workload's own.")
@click.option("--scale", default="1", show_default=True, help="Times as many rows: 1,10 measures both.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
def main(workloads: list[str], names: list[str], rounds: int, rows: int | None, scale: str, threads: int) -> None:
    """Compare tfbatch with its peers."""
    found, bad = [], []
    workloads, names = workloads or list(BY_NAME), names or able(contenders.names())
    for workload in (each for each in ALL if each.name in workloads):
        served = [name for name in names if serves(name, workload)]
        for times in map(int, scale.split(",")) if served else ():
            count = (rows or workload.rows) * times
            compared = compare(workload, served, count, rounds, threads)
            title = f"{workload.name}: {count:,} rows, {threads} threads, {rounds} rounds"
            results.show(console, title, compared)
            record = results.record(workload.name, count, threads, compared)
            results.keep(workload.name if times == 1 else f"{workload.name}-{times}x", record)
            found.append(record)
            bad += [f"{result.name} on {workload.name}" for result in compared if result.is_bad]
    for each in bad:
        console.print(f"bad: {each}", style="red")
    print(json.dumps({"status": "failed" if bad else "done", "bad": bad, "results": found}))
    sys.exit(1 if bad else 0)


def able(names: list[str]) -> list[str]:
    """Those that this processor can run as they are meant."""
    left_out = [name for name in names if not is_able(*way_of(name))]
    if left_out:
        console.print(f"left out, for this processor has no instructions for them: {', '.join(left_out)}")
    return [name for name in names if name not in left_out]


def way_of(name: str) -> tuple[str, str]:
    """The device that a contender gives tfbatch, nothing of others, and its precision."""
    contender = contenders.load_contender(name)
    options = getattr(contender, "ARGUMENTS", ())
    return dict(zip(options[::2], options[1::2], strict=True)).get("--device", ""), contender.PRECISION


def serves(name: str, workload: Workload) -> bool:
    return workload.kind in contenders.load_contender(name).KINDS


def compare(workload: Workload, names: list[str], rows: int, rounds: int, threads: int) -> list[Result]:
    """Each contender's runs; the first one that ran gave the results that the others must give."""
    file = input_of(workload, rows)
    make_checkpoint(workload.model)
    found = [Result(name, contenders.load_contender(name).PRECISION) for name in names]
    outputs = {}
    for result in found:
        if hasattr(contenders.load_contender(result.name), "ARGUMENTS"):
            attempt(result, lambda _: make_bundle(workload.model))
    for result in found:
        attempt(result, lambda name: race.prepare(name, workload, threads))
    for turn in range(rounds):
        for result in found:
            with console.status(f"{workload.name}, round {turn + 1} of {rounds}: {result.name}"):
                done = attempt(result, lambda name: race.run(name, workload, file, threads))
            if done:
                result.runs.append(done[0])
                outputs[result.name] = done[1]
    reference = reference_of(found)
    for result in found:
        if result.failure is None and reference:
            result.agreement = attempt(result, lambda name: agree(name, outputs, reference, workload))
    return found


def reference_of(found: list[Result]) -> str | None:
    """Whose results count: the first in fp32 that did not fail, else the first; tfbatch comes before all others."""
    ran = [result for result in found if result.failure is None]
    exact = [result for result in ran if result.precision == "fp32"]
    return next((result.name for result in [*exact, *ran]), None)


def agree(name: str, outputs: dict[str, Path], reference: str, workload: Workload) -> Agreement:
    """How far a contender's results are from those that count."""
    try:
        return agreement(outputs[name], outputs[reference], workload)
    except ValueError as error:
        raise race.ContenderFailed(f"{name} on {workload.name}: its output cannot be compared: {error}") from error


def attempt(result: Result, action: Callable[[str], Done]) -> Done | None:
    """Do something for a contender that has not failed yet; a failure is its result."""
    if result.failure is None:
        try:
            return action(result.name)
        except race.ContenderFailed as failed:
            result.failure = str(failed)
            console.print(result.failure, style="red", markup=False)
    return None


if __name__ == "__main__":
    main()
