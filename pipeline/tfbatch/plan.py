"""Input files to parts, from footers only: no row is read."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.errors import BadInput
from tfbatch.inputs.sources import Source, find_sources, hive_folders, unreadable

DATASETS = b"huggingface"  # metadata of the package `datasets`
INT96_UNIT = "us"  # of timestamps as Spark writes them: in nanoseconds the years before 1678 would come out as others


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A Parquet file as its footer describes it.

    `folder` is where its parts go below the output: the Hive folders (`day=2026-01-31`) that it
    lies in. `identity` changes with the file.
    """

    source: Source
    folder: PurePath
    rows: int
    schema: pa.Schema
    identity: str
    row_groups: int

    @property
    def facts(self) -> dict[str, Any]:
        """What decides its parts' rows and names, and must be the same for a run that goes on with another's."""
        return {"identity": self.identity, "folder": str(self.folder), "rows": self.rows}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows `first` to `stop` (exclusive) of one input file: what is written and committed as one."""

    file: int
    first: int
    stop: int
    folder: PurePath
    identity: str

    @property
    def rows(self) -> int:
        return self.stop - self.first

    def name(self, fingerprint: str) -> str:
        """The output file's path below the output folder."""
        last = max(self.stop - 1, self.first)
        stem = f"part-{self.file:05d}-{self.first:010d}-{last:010d}-{self.identity}-{fingerprint}"
        return str(self.folder / f"{stem}.parquet")


@dataclass(frozen=True, kw_only=True)
class Plan:
    files: list[InputFile]
    parts: list[Part]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def schema(self) -> pa.Schema:
        return self.files[0].schema

    def in_parts(self, rows: int, limit: int | None = None) -> "Plan":
        """The first `limit` rows of the same files, in parts of so many."""
        return replace(self, parts=list(cut_parts(self.files, rows, limit)))


def make_plan(inputs: tuple[str, ...]) -> Plan:
    """Read the footers of all inputs; a part for each.

    Raises:
        NoInput, UsageError: see `find_sources`.
        BadInput: a file that is not Parquet, or whose columns differ from the first one's.
    """
    files: list[InputFile] = []
    said: dict[bytes, bytes] = {}  # of the columns, by all files
    for file in map(open_input, find_sources(inputs)):
        first = files[0] if files else file
        if not file.schema.equals(first.schema):
            raise BadInput(
                f"{file.source} has other columns than {first.source}: {difference(first.schema, file.schema)}. "
                f"Files of one job have equal columns; run them as separate jobs."
            )
        says = file.schema.metadata or {}
        said = shared(said, says) if files else says
        files.append(replace(file, schema=first.schema))
    schema = files[0].schema.with_metadata(said)
    files = [replace(file, schema=schema) for file in files]  # one for all: of thousands of columns it takes megabytes
    return Plan(files=files, parts=[]).in_parts(sys.maxsize)


def shared(said: dict[bytes, bytes], says: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """What two files say of their columns; of what `datasets` says, each column by itself."""
    both = {key: value for key, value in said.items() if says.get(key) == value}
    if DATASETS in said and DATASETS in says and DATASETS not in both:
        first, second = (declared_features(metadata) for metadata in (said, says))
        features = {name: feature for name, feature in first.items() if second.get(name) == feature}
        both[DATASETS] = json.dumps({"info": {"features": features}}).encode()
    return both


def declared_features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """How Hugging Face `datasets` has a file's columns; nothing where it says none that can be read."""
    try:
        return dict(json.loads(metadata[DATASETS])["info"]["features"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def empty_table(schema: pa.Schema) -> pa.Table:
    """No rows; Arrow's own way knows no extension types within others."""
    return pa.Table.from_batches([], schema=schema)


def difference(first: pa.Schema, second: pa.Schema) -> str:
    """The first column in which two schemas differ, in words."""
    for name in dict.fromkeys([*first.names, *second.names]):
        here, there = ([field.type for field in schema if field.name == name] for schema in (first, second))
        if here != there:
            kinds = [" and ".join(map(str, kind)) or "missing" for kind in (here, there)]
            return f"{name} is {kinds[0]} there, {kinds[1]} here"
    return "their order or nullability differs"


def cut_parts(files: list[InputFile], rows_per_part: int, limit: int | None) -> Iterator[Part]:
    """Parts of all files in order; a file without rows is one part without rows."""
    left = limit
    for index, file in enumerate(files):
        rows = file.rows if left is None else min(file.rows, left)
        for first in range(0, max(rows, 1), rows_per_part):
            stop = min(first + rows_per_part, rows)
            yield Part(file=index, first=first, stop=stop, folder=file.folder, identity=file.identity)
        if left is not None:
            left -= rows
            if left == 0:
                return


def open_input(source: Source) -> InputFile:
    """Read one footer.

    Raises:
        TryAgain: an object store is not reached.
        BadInput: the file is not readable Parquet.
    """
    try:
        with source.open() as opened, pq.ParquetFile(opened, coerce_int96_timestamp_unit=INT96_UNIT) as file:
            rows, groups, schema = file.metadata.num_rows, file.metadata.num_row_groups, file.schema_arrow
            _ = schema.names  # which are decoded when they are asked for
            identity = source.identity_of(opened)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last of a column's name
        raise unreadable(source, "is not a readable Parquet file", error) from error
    folder = hive_folders(source)
    return InputFile(source=source, folder=folder, rows=rows, schema=schema, identity=identity, row_groups=groups)
