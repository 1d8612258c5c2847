"""The settings of a `--config` file: TOML, in which a value has a kind that the command line does not know."""

import tomllib
from pathlib import Path
from typing import Any

import click

from tfbatch.errors import BadConfiguration

LISTS = ("keep_columns", "labels")


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the settings of a TOML file the defaults of the command line."""
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"--config {path} cannot be read: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in content.items()}
    known = {option.name: option for option in ctx.command.params if isinstance(option, click.Option)}
    if unknown := sorted(set(settings) - (set(known) - {"config"})):
        raise BadConfiguration(f"--config {path} has no such setting: {', '.join(unknown)}")
    for name, value in content.items():
        wanted, kinds = kinds_of(known[name.replace("-", "_")])
        items = value if isinstance(value, list) else []
        if type(value) not in kinds or not all(type(item) in (str, int) for item in items):
            raise BadConfiguration(f"--config {path} sets {name} to {value!r}; it takes {wanted}")
    ctx.default_map = settings


def kinds_of(option: click.Option) -> tuple[str, tuple[type[Any], ...]]:
    """What an option takes, in words and as Python has it; a text is read as on the command line."""
    if option.is_flag:
        return "true or false", (bool, str)
    if isinstance(option.type, click.IntRange):
        return "a whole number", (int, str)
    if isinstance(option.type, click.FloatRange):
        return "a number", (int, float, str)
    if option.name in LISTS:
        return "a text or a list of texts", (str, list)
    return "a text", (str, int) if option.type is click.STRING else (str,)
