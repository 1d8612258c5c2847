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
    options = (option for option in ctx.command.params if isinstance(option, click.Option))
    known = {option.name: option for option in options if option.name != "config"}
    unknown = sorted(name for name in content if name.replace("-", "_") not in known)
    wrong = {name: value for name, value in settings.items() if name not in known or not is_fit(known[name], value)}
    is_looked_up = ctx.resilient_parsing  # how an error is to be told
    if unknown and not is_looked_up:
        raise BadConfiguration(f"--config {path}: there is no setting {', '.join(unknown)}; see tfbatch run --help")
    if wrong and not is_looked_up:
        name, value = next(iter(wrong.items()))
        wanted, _kinds = kinds_of(known[name])
        raise BadConfiguration(f"--config {path} sets {name.replace('_', '-')} to {value!r}; it takes {wanted}")
    ctx.default_map = {name: value for name, value in settings.items() if name not in wrong}


def is_fit(option: click.Option, value: Any) -> bool:
    """Whether a value is of a kind that an option takes."""
    items = value if isinstance(value, list) else []
    return type(value) in kinds_of(option)[1] and all(type(item) in (str, int) for item in items)


def kinds_of(option: click.Option) -> tuple[str, tuple[type[Any], ...]]:
    """What an option takes, in words and as Python has it; a text is read as on the command line."""
    if option.is_flag:
        return "true or false", (bool, str)
    if isinstance(option.type, click.IntRange):
        return f"a whole number{' or auto' if 'auto' in str(option.metavar) else ''}", (int, str)
    if isinstance(option.type, click.FloatRange):
        return "a number", (int, float, str)
    if option.name in LISTS:
        return "a text or a list of texts", (str, list)
    return "a text", (str, int) if option.type is click.STRING else (str,)
