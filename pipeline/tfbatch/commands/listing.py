"""What `inspect` found, for people: lines, and a table of the ways to compute a graph, which are compared."""

from collections.abc import Iterable, Iterator
from io import StringIO

from rich.console import Console
from rich.table import Table

from tfbatch.commands.samples import Record
from tfbatch.host.standard_streams import tell

WIDTH = 100  # columns at least, where it is no terminal
MANY = 12  # labels that are named


def show(found: Record) -> None:
    """Write all of it to standard error."""
    show_parts(bundle_parts(found) if found["kind"] == "bundle" else table_parts(found))


def show_parts(parts: Iterable[str | Table]) -> None:
    """Write lines and tables to standard error."""
    screen = Console(stderr=True)
    for part in parts:
        if isinstance(part, str):
            tell(part)
            continue
        drawn = StringIO()
        Console(file=drawn, width=max(screen.width, WIDTH), force_terminal=screen.is_terminal).print(part)
        tell(drawn.getvalue().removesuffix("\n"))


def bundle_parts(found: Record) -> Iterator[str | Table]:
    """Lines and tables of a bundle."""
    verified = "verified" if found["verified"] else "UNVERIFIED: not made by `tfbatch export`"
    yield f"{found['path']}: {found['task']}, {found['family']}, {verified}"
    source, labels = found["source"], found["labels"]
    yield f"source    {source.get('name')}, commit {source.get('commit') or 'none'}"
    if labels:
        more = f", and {len(labels) - MANY:,} more" if len(labels) > MANY else ""
        yield f"labels    {len(labels):,}: {', '.join(map(str, labels[:MANY]))}{more}"
    yield f"inputs    {', '.join(map(str, found['inputs']))}"
    yield f"settings  {pairs(found['settings'])}"
    for name, graph in found["graphs"].items():
        yield from graph_parts(name, graph)
    if found["versions"]:
        yield f"versions  {pairs(found['versions'])}"


def graph_parts(name: str, graph: Record) -> Iterator[str | Table]:
    """A graph's line, and how far each way to compute it is from PyTorch; cosine and labels are those of real rows,
    where there were any."""
    operators = [
        f"{name} {count['found']} of {count['expected']}" if any(count.values()) else f"no {name}"
        for name, count in graph["operators"].items()
    ]
    layers = f", {graph['layers']} layers: {', '.join(operators)}" if operators else ""
    yield f"{name:<9} {graph['file']}, {graph['bytes'] / 1e6:.1f} MB{layers}"
    if not graph["ways"]:
        return
    allowed = f"; {graph['tolerance']:.0e} is allowed in fp32" if any("fp32" in way for way in graph["ways"]) else ""
    table = Table(title=f"distance from PyTorch{allowed}")
    for heading in ("device", "precision", "arithmetic", "batches", "largest difference", "mean cosine",
                    "same label", "proved"):  # fmt: skip
        table.add_column(heading, justify="right" if table.columns[2:] else "left")
    for way, facts in graph["ways"].items():
        difference, cosine, same = facts["max_abs_difference"], facts["cosine"], facts["label_agreement"]
        table.add_row(
            *way.split(" ", 2),
            str(facts["batches"]),
            "not a number" if difference is None else f"{difference:.1e}",
            "-" if cosine is None else f"{cosine:.6f}",
            "-" if same is None else f"{same:.2%}",
            {None: "-", True: "yes", False: "no"}[facts["proved"]],
        )
    yield table


def table_parts(found: Record) -> Iterator[str]:
    """Lines of a Parquet input, three a column at most."""
    names = {"rows": "row", "files": "file", "row_groups": "row group"}
    counts = ", ".join(f"{found[key]:,} {name}{'' if found[key] == 1 else 's'}" for key, name in names.items())
    yield f"{', '.join(found['paths'])}: {counts}"
    width = max((len(column["name"]) for column in found["columns"]), default=0)
    for column in found["columns"]:
        yield f"  {column['name']:<{width}}  {column['type']}"
        if column["kinds"]:
            yield f"  {'':<{width}}  fits {', '.join(column['tasks']) or '--mask-column'}"
        if column["sample"]:
            yield f"  {'':<{width}}  {describe(column['sample'])}"


def describe(sample: Record) -> str:
    """A column's sample in words."""
    if not sample["rows"]:
        return "no rows"
    words = [f"of the first {sample['rows']:,}: {sample['null_share']:.1%} null"]
    if sample["unreadable"]:
        words.append(f"{sample['unreadable']:,} unreadable")
    words += [
        f"{sample[unit]['median']} {unit} in the median, {sample[unit]['max']} at most"
        for unit in ("characters", "tokens")
        if sample.get(unit, {}).get("max") is not None
    ]
    if "tokens" in sample:
        words.append(f"{sample['tokens']['share_at_limit']:.1%} reach the limit of {sample['tokens']['limit']}")
    if sample.get("width", {}).get("max") is not None:
        width, height = sample["width"], sample["height"]
        words.append(
            f"{width['median']} x {height['median']} pixels in the median, {width['max']} x {height['max']} at most"
        )
    return ", ".join(words)


def pairs(facts: Record) -> str:
    """Names with their values, on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
