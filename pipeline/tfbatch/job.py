"""A configuration, held against the data, the bundle and the machine: all that can be refused is
refused here, before a row is read or a folder made."""

import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfbatch import __version__
from tfbatch.bundle import Bundle, load_bundle
from tfbatch.cells import KINDS
from tfbatch.config import RunConfig
from tfbatch.device import arithmetic, choose_precision, find_devices
from tfbatch.errors import BadConfiguration, OutputRefused, UsageError
from tfbatch.foreign import open_bundle
from tfbatch.generated import IMAGE, declare_images
from tfbatch.image_files import ImageSink
from tfbatch.manifest import graph_of
from tfbatch.plan import Plan, make_plan
from tfbatch.session import Device
from tfbatch.sources import input_folders, local_path, place_of, scheme_of
from tfbatch.stages import meanwhile
from tfbatch.storage import is_one_file
from tfbatch.tasks import Task, load_task, task_names

ERROR_COLUMN = "error"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What will be done, settled.

    `schema` is that of the output: the kept input columns, the task's (with the prefix), `error`;
    `sink` says which of its columns are pictures in files.
    `devices` are of one kind; `workers` processes share the parts, where there are several.
    `facts` decide the bytes of the output, and `fingerprint` is their hash: not the size of a
    batch, threads, workers or paths.
    """

    config: RunConfig
    plan: Plan
    bundle: Bundle
    task: Task
    devices: list[Device]
    workers: int
    precision: str
    graph: Path
    column: str
    kept: list[str]
    schema: pa.Schema
    sink: ImageSink | None
    output: str
    facts: dict[str, Any]

    @property
    def device(self) -> Device:
        """What one process runs on, and the others on one like it."""
        return self.devices[0]

    @property
    def device_names(self) -> str:
        """As `--device` takes them: `cpu`, or `cuda:0,1`."""
        return ",".join([self.device.name, *(str(device.index) for device in self.devices[1:])])

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:8]

    def describe(self) -> str:
        """The plan in words, for a dry run."""
        return (
            f"{self.plan.rows:,} rows of {len(self.plan.files):,} file(s) in {len(self.plan.parts):,} part(s)\n"
            f"column {self.column} -> {self.bundle.manifest.task} with {self.bundle.path} "
            f"({self.precision}, {self.device_names}{'' if self.bundle.is_verified else ', unverified'})"
            f"{f', {self.workers} workers' if self.workers > 1 else ''}\n"
            f"output {self.output}: {', '.join(self.schema.names)}"
        )

    @property
    def input_columns(self) -> list[str]:
        """What the task reads."""
        return [self.column, *side_columns(self.task, self.config)]

    @property
    def carried_columns(self) -> list[str]:
        """What only goes out as it came in."""
        read = self.input_columns
        return [name for name in self.kept if name not in read]


def make_job(config: RunConfig, plan: Plan | None = None) -> Job:
    """Settle a job, of a plan that was made where one is given.

    Raises:
        UsageError, NoInput, BadInput, BadConfiguration, DeviceUnavailable, OutputRefused: what was
            found, and what to type.
    """
    plan = plan or make_plan(config.inputs, rows_per_part=config.rows_per_part, limit=config.limit)
    names = plan.schema.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{plan.files[0].source} has more than one column named {', '.join(twice)}; rename them")
    bundle = choose_bundle(config, plan.schema)
    task_class = load_task(bundle.manifest.task)
    refuse_options(config, bundle.manifest.task)
    column = choose_columns(task_class, config, plan.schema)
    likely = graph_of(config.precision)
    with meanwhile(lambda: bundle.graph_path(likely)) as checked:  # hashing a large graph takes a while
        devices = find_devices(config.device, config.gpu_memory)
        device = devices[0]
        precision = choose_precision(device, config.precision, bundle.manifest.graphs)
        task = task_class(bundle, config, column)
        graph = checked() if graph_of(precision) == likely else bundle.graph_path(graph_of(precision))
    kept = config.kept_columns(names)
    added = task_class.columns(config, bundle)
    return Job(
        config=config,
        plan=plan,
        bundle=bundle,
        task=task,
        devices=devices,
        workers=choose_workers(config, devices),
        precision=precision,
        graph=graph,
        column=column,
        kept=kept,
        schema=output_schema(plan.schema, kept, added, config),
        sink=image_sink(added, config),
        output=choose_output(config, plan),
        facts={
            "tfbatch": __version__,
            "bundle": bundle.identity,
            "input column": column,
            "precision": precision,
            "arithmetic": arithmetic(device, precision),
            "device": device.provider,
            "--keep-columns": kept,
            "--prefix": config.prefix,
            "--rows-per-part": config.rows_per_part,
            "--limit": config.limit,
            **{option_of(name): getattr(config, name) for name in task_class.options if name != "contact_sheet"},
        },
    )


def choose_workers(config: RunConfig, devices: list[Device]) -> int:
    """How many processes: as asked for, but one a device at least."""
    workers = config.workers or len(devices)
    if workers < len(devices):
        raise UsageError(f"--workers {workers} would leave some of the {len(devices)} GPUs of --device idle")
    return workers


def refuse_options(config: RunConfig, name: str) -> None:
    """Refuse settings of other tasks, which would be without effect."""
    own = load_task(name).options
    others = {option for other in task_names() for option in load_task(other).options} - set(own)
    if unfit := sorted(option_of(option) for option in others if not config.is_default(option)):
        raise UsageError(
            f"{', '.join(unfit)}: not for {name}, which has {', '.join(map(option_of, own)) or 'none'}; "
            f"`tfbatch tasks` lists those of the others, --task or -m chooses one"
        )


def option_of(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")


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
        raise UsageError(f"there is no column {asked}; the input has: {describe(schema)}")
    columns = schema if asked is None else [schema.field(asked)]
    for kind, fits in KINDS.items():
        for name, task in tasks.items():
            if task.kind == kind and any(fits(field.type) for field in columns):
                return name
    raise UsageError(
        f"{'no column of the input' if asked is None else f'column {asked}'} fits any of {', '.join(tasks)}; "
        f"the input has: {describe(schema)}. Name a bundle with -m BUNDLE."
    )


def choose_column(schema: pa.Schema, kind: str, asked: str | None) -> str:
    """The input column: as asked, or the only one of the kind."""
    fitting: list[str] = [field.name for field in schema if KINDS[kind](field.type)]
    if asked is not None:
        if asked not in schema.names:
            raise UsageError(f"there is no column {asked}; the input has: {describe(schema)}")
        if asked not in fitting:
            raise UsageError(
                f"column {asked} is {schema.field(asked).type}, which is no {kind}; "
                f"columns that are: {', '.join(fitting) or 'none'}"
            )
        return asked
    if not fitting:
        raise UsageError(f"no column holds {kind}; the input has: {describe(schema)}")
    if len(fitting) > 1:
        raise UsageError(
            f"{len(fitting)} columns hold {kind}: {', '.join(fitting)}. Choose one: --input-column {fitting[0]}"
        )
    return fitting[0]


def side_columns(task: Task | type[Task], config: RunConfig) -> dict[str, str]:
    """The columns that a task reads besides its input column, each with its kind."""
    named = {getattr(config, option): kind for option, kind in task.side_columns.items()}
    return {name: kind for name, kind in named.items() if name is not None}


def choose_columns(task: type[Task], config: RunConfig, schema: pa.Schema) -> str:
    """The input column, once those beside it have been found fit and left aside."""
    beside = side_columns(task, config)
    for option in task.side_columns:
        if (name := getattr(config, option)) is not None and name == config.input_column:
            raise UsageError(f"{option_of(option)} {name} is the input column too; it is a column of its own")
        if name is not None and name not in schema.names:
            raise UsageError(
                f"there is no column {name}, which {option_of(option)} names; the input has: {describe(schema)}"
            )
    for name, kind in beside.items():
        choose_column(schema, kind, name)
    candidates = pa.schema([field for field in schema if field.name not in beside])
    return choose_column(candidates, task.kind, config.input_column)


def describe(schema: pa.Schema) -> str:
    """The columns with their types, for a message."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"


def output_schema(schema: pa.Schema, kept: list[str], added: pa.Schema, config: RunConfig) -> pa.Schema:
    """Kept columns, then the task's and `error`, these with the prefix; a picture in a file is its path."""
    fields = [schema.field(name) for name in kept]
    new = [field.with_name(config.prefix + field.name) for field in [*added, pa.field(ERROR_COLUMN, pa.string())]]
    if config.images == "files":
        new = [field.with_type(pa.string()) if field.type == IMAGE else field for field in new]
    if taken := [field.name for field in new if field.name in kept]:
        raise UsageError(
            f"the input has a column {', '.join(taken)} already, which the output adds. "
            f"Put something before the new names, as in --prefix model_, or leave it out with --keep-columns."
        )
    metadata = {
        key: value for key, value in (schema.metadata or {}).items() if key == b"pandas" and kept == schema.names
    }
    result = pa.schema([*fields, *new])
    images = [field.name for field in new if field.type == IMAGE]
    return result.with_metadata(metadata | declare_images(result, images, schema))


def image_sink(added: pa.Schema, config: RunConfig) -> ImageSink | None:
    """The columns of pictures that go to files; the first one's files are named by their row alone."""
    names = [field.name for field in added if field.type == IMAGE]
    if config.images == "column" or not names:
        return None
    suffix = f".{config.image_format}"
    endings = {config.prefix + name: f"-{name}{suffix}" if name != names[0] else suffix for name in names}
    return ImageSink(endings=endings, in_column_too=config.images == "both")


def choose_output(config: RunConfig, plan: Plan) -> str:
    """The output folder or address, or the single file that was asked for.

    Raises:
        UsageError: a file was asked for where it cannot be had.
        OutputRefused: the output would lie in the input, or the input in the output.
    """
    output = local_path(config.output) if config.output else default_output(config, plan)
    if scheme_of(output) and output.endswith(".parquet"):
        raise UsageError(f"-o {output} is one file; in an object store name a folder, or join its parts later")
    if scheme_of(output) and set(output) & set("?#%"):
        raise UsageError(f"-o {output}: an output's address holds no ?, # or %")
    if is_one_file(output) and len(plan.files) > 1:
        raise UsageError(f"-o {output} is one file, but the input is {len(plan.files)} files; name a folder")
    if is_one_file(output) and config.images != "column":
        raise UsageError(
            f"--images {config.images} puts files beside the parts; -o {output} is one file, name a folder"
        )
    place = place_of(output)
    folders = [folder for text in config.inputs for folder in input_folders(text)]
    for source in [*folders, *(file.source.place for file in plan.files)]:
        if place == source or place in source.parents or (source in folders and place.is_relative_to(source)):
            raise OutputRefused(f"output {output} and input {source} lie in one another; choose another with -o")
    if any(fnmatch(output, text) for text in config.inputs):
        raise OutputRefused(f"output {output} would be input the next time; choose another with -o")
    return output


def default_output(config: RunConfig, plan: Plan) -> str:
    """`<name>-predictions` in the working directory, by the name of the input's file or folder."""
    first, place = place_of(config.inputs[0]), plan.files[0].source.place
    if first in place.parents:
        return f"{first.name}-predictions"
    return f"{place.stem if len(plan.files) == 1 else place.parent.name}-predictions"
