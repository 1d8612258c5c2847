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
from tfbatch.columns import choose_columns, describe_columns, image_sink, output_schema, side_columns
from tfbatch.config import RunConfig, option_of
from tfbatch.device import arithmetic, choose_precision, find_devices
from tfbatch.errors import BadConfiguration, OutputRefused, UsageError
from tfbatch.foreign import open_bundle
from tfbatch.image_files import ImageSink
from tfbatch.manifest import graph_of
from tfbatch.plan import Plan, make_plan
from tfbatch.session import Device
from tfbatch.sources import input_folders, local_path, place_of, scheme_of
from tfbatch.stages import meanwhile
from tfbatch.storage import is_one_file
from tfbatch.tasks import Task, load_task, task_names


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
    raise UsageError(
        f"{'no column of the input' if asked is None else f'column {asked}'} fits any of {', '.join(tasks)}; "
        f"the input has: {describe_columns(schema)}. Name a bundle with -m BUNDLE."
    )


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
