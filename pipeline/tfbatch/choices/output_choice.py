"""Where a job's output lies."""

import glob
from fnmatch import fnmatchcase
from os.path import abspath
from pathlib import Path, PurePath, PurePosixPath

from tfbatch.config import RunConfig
from tfbatch.errors import OutputRefused, UsageError
from tfbatch.inputs.addresses import WILDCARD, is_text, local_path, place_of, scheme_of
from tfbatch.inputs.sources import input_folders
from tfbatch.outputs.storage import is_one_file
from tfbatch.plan import Plan

OTHER_FORMATS = {".arrow", ".avro", ".csv", ".db", ".feather", ".json", ".jsonl", ".orc", ".tsv", ".txt", ".xlsx"}
PART = "part-00000-0000000000-0000000000-00000000-00000000.parquet"  # stands for all of an output's


def choose_output(config: RunConfig, plan: Plan, bundle: Path) -> str:
    """The output folder or address, or the single file that was asked for.

    Raises:
        UsageError: a file was asked for where it cannot be had.
        OutputRefused: the output would lie in the input or the bundle, or the input in the output.
    """
    output = local_path(config.output) if config.output else default_output(config, plan)
    refuse_form(output, config, plan)
    try:
        place = place_of(output)
    except FileNotFoundError as error:
        raise OutputRefused(f"output {output}: the working directory is gone; name a whole path with -o") from error
    refuse_place(output, place, config, plan)
    if place.is_relative_to(place_of(str(bundle))):
        raise OutputRefused(f"output {output} lies in bundle {bundle}; choose another with -o")
    if config.metrics_file is not None and place_of(str(config.metrics_file)) == place:
        raise UsageError(f"--metrics-file {config.metrics_file} is the output too; name another file")
    return output


def refuse_place(output: str, place: PurePath, config: RunConfig, plan: Plan) -> None:
    """Refuse an output among what is read, now or by the next job with the same input."""
    folders = [folder for text in config.inputs for folder in input_folders(text)]
    for source in [*folders, *(file.source.place for file in plan.files)]:
        if place == source or place in source.parents or (source in folders and place.is_relative_to(source)):
            raise OutputRefused(f"output {output} and input {source} lie in one another; choose another with -o")
    if any(would_match(text, output, plan) for text in config.inputs):
        raise OutputRefused(f"output {output} would be input the next time; choose another with -o")


def refuse_form(output: str, config: RunConfig, plan: Plan) -> None:
    """Refuse names that cannot be an output's, or not this job's."""
    if not is_text(output):
        raise UsageError(f"-o {output!a}: a name that is not UTF-8 can be recorded nowhere; choose another")
    if (suffix := PurePath(output).suffix.lower()) in OTHER_FORMATS:
        raise UsageError(f"-o {output}: Parquet is written, not {suffix}; name a folder or a .parquet file")
    if scheme_of(output) and suffix == ".parquet":
        raise UsageError(f"-o {output} is one file; in an object store name a folder, or join its parts later")
    if scheme_of(output) and set(output) & set("?#%"):
        raise UsageError(f"-o {output}: an output's address holds no ?, # or %")
    if is_one_file(output) and len(plan.files) > 1:
        raise UsageError(f"-o {output} is one file, but the input is {len(plan.files)} files; name a folder")
    if is_one_file(output) and config.images != "column":
        raise UsageError(
            f"--images {config.images} puts files beside the parts; -o {output} is one file, name a folder"
        )


def would_match(text: str, output: str, plan: Plan) -> bool:
    """Whether an input's pattern matches what will lie in the output, or a folder that the output is in."""
    if scheme_of(text) is None and Path(local_path(text)).exists():
        return False  # it is the name of a file or folder, whatever letters are in it
    names = [f"{output.rstrip('/')}/{folder / PART}" for folder in {file.folder for file in plan.files}]
    names = [output, f"{output}.tfbatch/{PART}"] if is_one_file(output) else names
    paths = [path for name in names for path in ([name] if scheme_of(name) else ways_to(name))]
    return any(matches(path, pattern) for path in paths for pattern in patterns_of(text))


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern matches a path, or a folder above it, all of which it would take in. What is below ** is told
    by the folder that it stands in, see `input_folders`."""
    names, steps = path.split("/"), pattern.rstrip("/").split("/")
    hides = any(name.startswith(".") > step.startswith(".") for name, step in zip(names, steps, strict=False))
    return len(steps) <= len(names) and not hides and all(map(fnmatchcase, names, steps))


def ways_to(path: str) -> list[str]:
    """A path of this machine from the root on, as it is spelled and with its links followed."""
    return [abspath(path), str(Path(path).resolve())]  # noqa: PTH100 -- a link stays one


def patterns_of(text: str) -> list[str]:
    """A pattern from the root on, in all ways that lead to where its first wildcard stands; an address as it is."""
    path = local_path(text)
    if scheme_of(text) or (wildcard := WILDCARD.search(path)) is None:
        return [text]
    begin = path.rfind("/", 0, wildcard.start()) + 1
    return [f"{glob.escape(folder.rstrip('/'))}/{path[begin:]}" for folder in ways_to(path[:begin] or ".")]


def default_output(config: RunConfig, plan: Plan) -> str:
    """`<name>-predictions` in the working directory, by the name of the input's file or folder as it is written, of a
    pattern by that of the folder it begins in; what would look like a Hive folder (`day=1`) to whoever reads it does
    not.

    Raises:
        UsageError: several inputs lie in several folders.
    """
    if len(config.inputs) == 1:
        name = default_name(config.inputs[0], plan)
    else:
        folders = {file.source.place.parent for file in plan.files}
        if len(folders) > 1:
            raise UsageError("the inputs lie in several folders; name the output with -o")
        name = folders.pop().name
    return f"{name}-predictions".replace("=", "-")


def default_name(text: str, plan: Plan) -> str:
    """What an input is called."""
    path = local_path(text)
    found = None if scheme_of(text) is None and Path(path).exists() else WILDCARD.search(path)
    if found is not None:
        path = path[: path.rfind("/", 0, found.start()) + 1]
    whole = PurePosixPath(path if scheme_of(text) else abspath(path))  # noqa: PTH100 -- a link keeps its name
    return whole.stem if plan.files[0].source.place == place_of(text) else whole.name
