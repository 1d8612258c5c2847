"""What options of `tfbatch run` are made of: where their values come from, and how the odd ones are read."""

import csv
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tfbatch.config import RunConfig
from tfbatch.errors import UsageError

VARIABLE = "TFBATCH_"
SETTINGS = {f"{VARIABLE}{name.upper()}" for name in (*RunConfig.__dataclass_fields__, "config")} - {f"{VARIABLE}INPUTS"}
ALIKE = 0.85  # of two names that may be one: a letter is wrong, or of a long one two


class Setting(click.Option):
    """An option whose value may come from elsewhere: an error says from where."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        source = ctx.get_parameter_source(str(self.name)) if ctx else None
        if source is ParameterSource.ENVIRONMENT:
            return f"{self.envvar} in the environment"
        if source is ParameterSource.DEFAULT_MAP:
            return f"{str(self.name).replace('_', '-')} in the --config file"
        return super().get_error_hint(ctx)


def setting(*names: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option of `run`: its default is RunConfig's, its variable TFBATCH_<NAME>."""
    name = next((name for name in names if not name.startswith("-")), names[-1].lstrip("-").replace("-", "_"))
    default = RunConfig.__dataclass_fields__[name].default
    shown = default not in (None, "", False)
    return click.option(
        *names, cls=Setting, default=default, envvar=f"{VARIABLE}{name.upper()}", show_default=shown, **attributes
    )


def misspelt(variables: Iterable[str]) -> dict[str, str]:
    """Variables that are no setting and look like one, with that one. Others are left alone: a variable may be
    called TFBATCH_ something by whatever starts a container."""
    known = [name.removeprefix(VARIABLE) for name in SETTINGS]
    strange = sorted(name for name in variables if name.startswith(VARIABLE) and name not in SETTINGS)
    meant = {name: get_close_matches(name.removeprefix(VARIABLE), known, n=1, cutoff=ALIKE) for name in strange}
    return {name: f"{VARIABLE}{found[0]}" for name, found in meant.items() if found}


class Place(click.Path):
    """A path; an empty one, as of a variable that is not set, would be the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


class Name(click.types.StringParamType):
    """A text that says where something is, which is never empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


class Tokens(click.IntRange):
    """A number, or `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


def read_labels(value: Any) -> tuple[str, ...]:
    """Names with commas between them, in double quotes where they hold one; or a list in a config file."""
    if not isinstance(value, str):
        return tuple(map(str, value))
    try:
        return tuple(name.strip() for row in csv.reader([value], skipinitialspace=True, strict=True) for name in row)
    except csv.Error as error:
        raise UsageError(f"--labels {value} is no list of labels: {error}") from error


def read_columns(value: Any) -> str | tuple[str, ...]:
    """Names with commas between them, `all` or `none`; or a list in a config file, whose names may hold commas."""
    if isinstance(value, str):
        return value
    return tuple(map(str, value)) or "none"
