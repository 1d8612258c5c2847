"""Which of the input's columns a task reads, and what columns the output has."""

import json
from collections.abc import Iterable
from pathlib import PurePath

import pyarrow as pa

from tfbatch.batching.cells import KINDS
from tfbatch.config import RunConfig, option_of
from tfbatch.errors import UsageError
from tfbatch.outputs.image_files import ImageSink
from tfbatch.pictures.generated import IMAGE, declare_images
from tfbatch.tasks import Task

ERROR_COLUMN = "error"
PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
LISTS = {pa.types.is_list: pa.list_, pa.types.is_large_list: pa.large_list}
CARRIED = (b"pandas", b"geo")  # metadata that goes on: how pandas and GeoParquet have a file's columns


def choose_columns(task: type[Task], config: RunConfig, schema: pa.Schema) -> str:
    """The input column, once those beside it have been found fit and left aside."""
    beside = side_columns(task, config)
    for option in task.side_columns:
        if (name := getattr(config, option)) is not None and name == config.input_column:
            raise UsageError(f"{option_of(option)} {name} is the input column too; it must be another one")
        if name is not None and name not in schema.names:
            raise UsageError(
                f"there is no column {name}, which {option_of(option)} names; the input has: {describe_columns(schema)}"
            )
    for name, kind in beside.items():
        choose_column(schema, kind, name)
    candidates = pa.schema([field for field in schema if field.name not in beside])
    if beside and not any(KINDS[task.kind](field.type) for field in candidates):
        others = ", ".join(beside)
        raise UsageError(f"no column but {others} holds {task.kind}; the input has: {describe_columns(schema)}")
    return choose_column(candidates, task.kind, config.input_column)


def choose_column(schema: pa.Schema, kind: str, asked: str | None) -> str:
    """The input column: as asked, or the only one of the kind."""
    fitting: list[str] = [field.name for field in schema if KINDS[kind](field.type)]
    if asked is not None:
        if asked not in schema.names:
            raise UsageError(f"there is no column {asked}; the input has: {describe_columns(schema)}")
        if asked not in fitting:
            raise UsageError(
                f"column {asked} is {schema.field(asked).type}, which is no {kind}; "
                f"columns that are: {', '.join(fitting) or 'none'}"
            )
        return asked
    if not fitting:
        raise UsageError(f"no column holds {kind}; the input has: {describe_columns(schema)}")
    if len(fitting) > 1:
        raise UsageError(
            f"{len(fitting)} columns hold {kind}: {', '.join(fitting)}. Choose one of them: --input-column NAME"
        )
    return fitting[0]


def side_columns(task: Task | type[Task], config: RunConfig) -> dict[str, str]:
    """The columns that a task reads besides its input column, each with its kind."""
    named = {getattr(config, option): kind for option, kind in task.side_columns.items()}
    return {name: kind for name, kind in named.items() if name is not None}


def describe_columns(schema: pa.Schema) -> str:
    """The columns with their types, for a message."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"


def output_schema(
    schema: pa.Schema, kept: list[str], added: pa.Schema, config: RunConfig, folders: Iterable[PurePath]
) -> pa.Schema:
    """Kept columns, then the task's and `error`, these with the prefix; a picture in a file is its path. No new one
    has the name of a Hive folder (`day=1`) that the rows will lie in, which readers make a column of."""
    fields = [field.with_type(writable(field.type)) for field in map(schema.field, kept)]
    new = [field.with_name(config.prefix + field.name) for field in [*added, pa.field(ERROR_COLUMN, pa.string())]]
    if config.images == "files":
        new = [field.with_type(pa.string()) if field.type == IMAGE else field for field in new]
    there = {name.lower(): name for name in kept}  # as engines have it that know no case
    if taken := [there[field.name.lower()] for field in new if field.name.lower() in there]:
        raise UsageError(
            f"the input has a column {', '.join(taken)} already, which the output adds. "
            f"Put something before the new names, as in --prefix model_, or leave it out with --keep-columns."
        )
    keys = {name.partition("=")[0].lower() for folder in set(folders) for name in folder.parts}
    if taken := [field.name for field in new if field.name.lower() in keys]:
        raise UsageError(
            f"the input lies in folders {taken[0]}=..., which readers make a column of, and the output adds one of "
            f"that name. Put something before the new names, as in --prefix model_."
        )
    metadata = carried_metadata(schema) if kept == schema.names else {}
    result = pa.schema([*fields, *new])
    images = [field.name for field in new if field.type == IMAGE]
    return result.with_metadata(metadata | declare_images(result, images, schema))


def writable(kind: pa.DataType) -> pa.DataType:
    """A type as pyarrow can write it: it has no way to slice a struct whose fields are views, and Parquet has them as
    plain strings and bytes anyway."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(PLAIN.get(field.type) or writable(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field, kind.item_field.with_type(writable(kind.item_type)), kind.keys_sorted)
    for is_kind, make in LISTS.items():
        if is_kind(kind):
            return make(kind.value_field.with_type(writable(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(writable(kind.value_type)), kind.list_size)
    return kind


def carried_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """What is said of all of the input's columns and may be said beside new ones."""
    said = {key: value for key, value in (schema.metadata or {}).items() if key in CARRIED}
    return {key: value for key, value in said.items() if key != b"pandas" or is_of_names(value)}


def is_of_names(pandas: bytes) -> bool:
    """Whether pandas has columns by their names: of numbers, dates or several levels it would make the new ones too."""
    try:
        (index,) = json.loads(pandas)["column_indexes"]
        return index["pandas_type"] in ("unicode", "string")
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def image_sink(added: pa.Schema, config: RunConfig) -> ImageSink | None:
    """The columns of pictures that go to files; the first one's files are named by their row alone."""
    names = [field.name for field in added if field.type == IMAGE]
    if config.images == "column" or not names:
        return None
    suffix = f".{config.image_format}"
    endings = {config.prefix + name: f"-{name}{suffix}" if name != names[0] else suffix for name in names}
    return ImageSink(endings=endings, in_column_too=config.images == "both")
