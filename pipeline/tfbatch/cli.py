"""The command `tfbatch`: its commands, and errors out as exit codes."""

import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from tfbatch import __version__
from tfbatch.commands.options import Name, Place
from tfbatch.commands.run import report_asked_for, run
from tfbatch.config import RunConfig, option_of
from tfbatch.errors import BadConfiguration, DeviceUnavailable, TfbatchError, UsageError
from tfbatch.host.process import keep_standard_files, leave
from tfbatch.host.standard_streams import put, say, tell

EXPORT_PACKAGES = ("torch", "transformers", "optimum", "onnx", "onnxscript")


class ExportCommand(click.Command):
    """A command of the export stage: listed by its help text, imported (with torch) when called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        missing = [package for package in EXPORT_PACKAGES if find_spec(package) is None]
        if missing:
            raise BadConfiguration(
                f"tfbatch {self.name} needs {', '.join(missing)}: pip install 'tfbatch[export]' "
                f"(running a bundle needs none of them)"
            )
        command: click.Command = getattr(import_module("tfbatch_export.cli"), str(self.name))
        return command.make_context(info_name, args, parent, **extra)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="tfbatch")
def cli() -> None:
    """Batch inference for transformers: export a checkpoint once, score tables every night."""


cli.add_command(ExportCommand("export", short_help="Turn a Hugging Face checkpoint into a verified bundle."))
cli.add_command(ExportCommand("verify", short_help="Check a bundle again: files, fused operators, parity."))
cli.add_command(run)


@cli.command()
def doctor() -> None:
    """Say what this machine has: devices are tried, and what does not work is explained."""
    from tfbatch.commands.doctor import describe, examine

    facts = examine()
    tell("\n".join(describe(facts)))
    say({"status": "works" if facts["works"] else "nothing works", **facts})
    if not facts["works"]:
        sys.exit(DeviceUnavailable.exit_code)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=Name(), metavar="PATH...")
@click.option("-m", "--bundle", type=Place(), help="Count the tokens of texts as this bundle does.")
def inspect(paths: tuple[str, ...], bundle: Path | None) -> None:
    """Say what a bundle or a Parquet input holds.

    PATH is a bundle, a folder that optimum or sentence-transformers exported, or what `run` takes as
    INPUT. Of an input the footers are read, and its first rows.
    """
    from tfbatch.commands.inspection import inspect as find_out
    from tfbatch.commands.listing import show

    found = find_out(paths, bundle)
    show(found)
    say(found)


@cli.command()
def tasks() -> None:
    """List the tasks: the column they read, the columns they add."""
    from tfbatch.tasks import task_names

    put("\n".join(line for name in task_names() for line in lines_of(name)))


def lines_of(name: str) -> Iterator[str]:
    """What a task reads, adds and can be asked for."""
    from tfbatch.tasks import load_task, type_name

    task = load_task(name)
    yield name
    yield f"  reads {task.kind}, default model: {task.default_model or 'none'}"
    always = task.columns(RunConfig(inputs=())).names
    for field in task.columns(RunConfig(inputs=(), top_k=1, threshold=0.5, keep_mask=True)):
        asked = "" if field.name in always else " (where asked for)"
        yield f"  adds {field.name}: {type_name(field.type)}{asked}"
    yield "  adds error: string"
    yield f"  options: {', '.join(map(option_of, task.options))}"


def main() -> None:
    """The command `tfbatch`: an error becomes a paragraph on standard error, an exit code and, for
    `run`, the last line of standard output."""
    keep_standard_files()
    leave(exit_code_of_command())


def exit_code_of_command() -> int:
    """Do what the command line asks for."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as request:
        return request.exit_code
    except SystemExit as request:  # of a command that has said why
        return int(request.code or 0)
    except click.ClickException as error:
        return fail(UsageError.exit_code, error.format_message())
    except TfbatchError as error:
        return fail(error.exit_code, str(error))
    except click.Abort:
        return fail(128 + signal.SIGINT, "interrupted")
    return 0


def fail(exit_code: int, reason: str) -> int:
    """Say why a command could not begin; its exit code."""
    if "run" in sys.argv[1:2]:
        report_asked_for(sys.argv[2:]).failed(exit_code, reason)
    else:
        tell(f"tfbatch: {reason}")
    return exit_code


if __name__ == "__main__":
    main()
