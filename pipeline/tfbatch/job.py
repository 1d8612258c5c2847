"""A configuration, held against the data, the bundle and the machine: all that can be refused is
refused here, before a row is read or a folder made."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfbatch import __version__
from tfbatch.bundle import Bundle
from tfbatch.bundles.manifest import graph_of
from tfbatch.choices.bundle_choice import choose_bundle
from tfbatch.choices.columns import choose_columns, image_sink, output_schema, side_columns
from tfbatch.choices.output_choice import choose_output
from tfbatch.choices.part_choice import rows_per_part
from tfbatch.config import RunConfig, option_of
from tfbatch.errors import UsageError
from tfbatch.host.machine import available_threads
from tfbatch.host.process import do_without_pandas, limit_threads
from tfbatch.outputs.image_files import ImageSink
from tfbatch.outputs.storage import is_one_file
from tfbatch.pictures.decoders import DECODERS
from tfbatch.plan import Plan, make_plan
from tfbatch.runtimes.device import arithmetic, choose_precision, find_devices
from tfbatch.session import Device
from tfbatch.stages import meanwhile
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


def begin_job(config: RunConfig, plan: Plan | None = None) -> Job:
    """Settle a job in a process that will do some of it, whose pools are held to the job's threads; see `make_job`."""
    threads = config.threads or available_threads()
    limit_threads(threads)
    DECODERS.limit(threads)
    do_without_pandas()
    job = make_job(config, plan)
    limit_threads(job.device.tokenizing(threads))  # now that this is known, and before there is a text to tokenize
    return job


def make_job(config: RunConfig, plan: Plan | None = None) -> Job:
    """Settle a job, of a plan that was made where one is given.

    Raises:
        UsageError, NoInput, BadInput, BadConfiguration, DeviceUnavailable, OutputRefused: what was
            found, and what to type.
    """
    given, plan = plan, plan or make_plan(config.inputs)
    names = plan.schema.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{plan.files[0].source} has more than one column named {', '.join(twice)}; rename them")
    bundle = choose_bundle(config, plan.schema)
    task_class = load_task(bundle.manifest.task)
    refuse_options(config, bundle.manifest.task)
    rows = rows_per_part(config, task_class)
    plan = given or plan.in_parts(rows, config.limit)
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
    output = choose_output(config, plan, bundle.path)
    folders = [] if is_one_file(output) else [file.folder for file in plan.files]
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
        schema=output_schema(plan.schema, kept, added, config, folders),
        sink=image_sink(added, config),
        output=output,
        facts={
            "tfbatch": __version__,
            "bundle": bundle.identity,
            "input column": column,
            "precision": precision,
            "arithmetic": arithmetic(device, precision),
            "device": device.provider,
            "--keep-columns": kept,
            "--prefix": config.prefix,
            "--rows-per-part": rows,
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
