"""Where a job's output lies."""

from fnmatch import fnmatch
from os.path import abspath

from tfbatch.config import RunConfig
from tfbatch.errors import OutputRefused, UsageError
from tfbatch.inputs.addresses import is_text, local_path, place_of, scheme_of
from tfbatch.inputs.sources import input_folders
from tfbatch.outputs.storage import is_one_file
from tfbatch.plan import Plan


def choose_output(config: RunConfig, plan: Plan) -> str:
    """The output folder or address, or the single file that was asked for.

    Raises:
        UsageError: a file was asked for where it cannot be had.
        OutputRefused: the output would lie in the input, or the input in the output.
    """
    output = local_path(config.output) if config.output else default_output(config, plan)
    if not is_text(output):
        raise UsageError(f"-o {output!a}: a name that is not UTF-8 can be recorded nowhere; choose another")
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
    if any(fnmatch(whole(output), whole(text)) for text in config.inputs):
        raise OutputRefused(f"output {output} would be input the next time; choose another with -o")
    return output


def whole(text: str) -> str:
    """A path from the root on, or an address, of a pattern too."""
    return text if scheme_of(text) else abspath(local_path(text))  # noqa: PTH100 -- a link stays one


def default_output(config: RunConfig, plan: Plan) -> str:
    """`<name>-predictions` in the working directory, by the name of the input's file or folder."""
    first, place = place_of(config.inputs[0]), plan.files[0].source.place
    if first in place.parents:
        return f"{first.name}-predictions"
    return f"{place.stem if len(plan.files) == 1 else place.parent.name}-predictions"
