"""Which bundle a job runs, and with it which task."""

import pyarrow as pa

from tfbatch.batching.cells import KINDS
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.choices.columns import describe_columns
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.foreign import open_bundle
from tfbatch.tasks import load_task, task_names


def choose_bundle(config: RunConfig, schema: pa.Schema) -> Bundle:
    """The bundle named, or the default model of the one task that fits the columns."""
    if config.bundle is not None:
        bundle = open_bundle(config.bundle)
        if config.task not in (None, bundle.manifest.task):
            raise UsageError(f"bundle {config.bundle} is for {bundle.manifest.task}, not for --task {config.task}")
        return bundle
    name = config.task or default_task(schema, config.input_column)
    model = load_task(name).default_model
    if model is None:
        raise UsageError(f"task {name} has no default model: name a bundle with -m BUNDLE")
    path = config.models / model
    if not path.is_dir():
        raise BadConfiguration(
            f"no bundle was named, and the default for {name}, {path}, is not there. "
            f"Name one with -m BUNDLE, or build the defaults with `make export` "
            f"and say where they are with TFBATCH_MODELS."
        )
    return load_bundle(path)


def default_task(schema: pa.Schema, asked: str | None) -> str:
    """The task with a default model whose kind of column the input has. An image column decides:
    tables of images have strings beside them, labels and names."""
    tasks = {name: task for name in task_names() if (task := load_task(name)).default_model}
    if asked is not None and asked not in schema.names:
        raise UsageError(f"there is no column {asked}; the input has: {describe_columns(schema)}")
    columns = schema if asked is None else [schema.field(asked)]
    for kind, fits in KINDS.items():
        for name, task in tasks.items():
            if task.kind == kind and any(fits(field.type) for field in columns):
                return name
    columns_asked = "no column of the input fits any" if asked is None else f"column {asked} fits none"
    raise UsageError(
        f"{columns_asked} of {', '.join(tasks)}; the input has: {describe_columns(schema)}. "
        f"For another task name a bundle with -m BUNDLE."
    )
