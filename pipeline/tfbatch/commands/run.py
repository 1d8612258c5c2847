"""`tfbatch run`: words in, a RunConfig out, and what comes of it reported."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tfbatch.commands.config_file import read_config
from tfbatch.commands.options import Name, Place, Tokens, misspelt, read_columns, read_labels, setting
from tfbatch.config import (
    AGGREGATIONS,
    EMBEDDING_TYPES,
    IMAGE_FORMATS,
    IMAGE_SINKS,
    LOG_FORMATS,
    OVERFLOWS,
    PRECISIONS,
    RunConfig,
)
from tfbatch.errors import Interrupted

if TYPE_CHECKING:
    from tfbatch.reporting.report import Report

SECONDS_BETWEEN_LOOKS = 0.5


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=Name(), metavar="INPUT...")
@setting("-m", "--bundle", "bundle", type=Place(), help="The bundle to run; the default "
         "is `sentiment` for a text column and `fashion` for an image column, of the models folder.")  # fmt: skip
@setting("--models", type=Place(), help="Where the default bundles are.")
@setting("-o", "--output", "output",
         help="A folder, an address such as s3://bucket/name, or one .parquet file for one input file; "
              "the default is <input>-predictions, of a pattern the folder it begins in.")  # fmt: skip
@setting("--input-column", help="The column to read, where more than one fits.")
@setting("--task", help="What to do, where no bundle is named; see `tfbatch tasks`.")
@setting("--device", help="auto, cpu, cuda, cuda:N, openvino, or several GPUs such as cuda:0,1.")
@setting(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="How to compute; int8 and fp16 need a graph of the bundle's, bf16 --device openvino.",
)
@setting("--text-pair-column", help="The second text of each pair; the input column holds the first.")
@setting("--max-length", type=click.IntRange(min=1), help="Cut texts at so many tokens; default: the model's most.")
@setting("--overflow", type=click.Choice(OVERFLOWS),
         help="Of texts over that length: cut them, or read them in windows and average what comes out.")  # fmt: skip
@setting("--stride", type=click.IntRange(min=0), help="Tokens that neighbouring windows share; default: 128 or half.")
@setting("--aggregation", type=click.Choice(AGGREGATIONS),
         help="How tokens become entities: each its own; neighbours of a label; or whole words, by their first token, "
              "their average or their best.")  # fmt: skip
@setting("--question-column", help="What is asked of each text; the input column holds the texts.")
@setting("--handle-impossible", is_flag=True, help="Give no answer where the model finds none likelier than any.")
@setting("--max-answer-length", type=click.IntRange(min=1), metavar="TOKENS", help="The most that an answer has.")
@setting("--batch-tokens", type=Tokens(min=1), metavar="N|auto",
         help="Rows x padded length of a batch; auto tries out what is fastest, once. Default: by device.")  # fmt: skip
@setting("--keep-columns", type=read_columns, metavar="A,B|all|none", help="Input columns that the output repeats.")
@setting("--all-scores", is_flag=True, help="Add predicted_scores, with every label.")
@setting("--top-k", type=click.IntRange(min=1), help="Add predicted_scores, with the best K labels.")
@setting("--threshold", type=click.FloatRange(), help="Add predicted_labels: those that score so much or more.")
@setting("--dimensions", type=click.IntRange(min=1), help="Keep the first N numbers of an embedding.")
@setting("--embedding-type", type=click.Choice(EMBEDDING_TYPES), help="Of an embedding's numbers.")
@setting("--labels", type=read_labels, metavar="A,B", help="What to choose from, where the model is for any labels.")
@setting(
    "--label-template", metavar="TEXT", help="The text that a label is put into, at {}; the default is the task's."
)
@setting("--multi-label", is_flag=True, help="Score each of --labels by itself: several may be true, or none.")
@setting("--exact-decoding", is_flag=True, help="Have the Hub's very pixels: decode and resize pictures whole.")
@setting("--mask-ratio", type=click.FloatRange(0, 1, min_open=True),
         help="Share of a picture to hide; default: the model's own.")  # fmt: skip
@setting("--mask-column", help="What to hide: an image (all but black is made anew), or a list with an entry a patch.")
@setting("--seed", type=click.IntRange(min=0), help="Of the random choice of what is hidden.")
@setting("--keep-mask", is_flag=True, help="Add masked_image, what the model saw.")
@setting("--original-size", is_flag=True, help="Paste what was made into the full picture.")
@setting("--images", type=click.Choice(IMAGE_SINKS), help="Pictures in the column, or in files with their paths in it.")
@setting("--image-format", type=click.Choice(IMAGE_FORMATS), help="How pictures are encoded.")
@setting("--image-quality", type=click.IntRange(1, 100), help="Of jpeg and webp; default: 90.")
@setting("--contact-sheet", type=click.IntRange(1, 100), metavar="N",
         help="Draw the first N rows in OUTPUT/_tfbatch/contact_sheet.png.")  # fmt: skip
@setting("--prefix", help="Put before the names of the new columns.")
@setting("--rows-per-part", type=click.IntRange(min=1), metavar="N",
         help="Rows of an output file, what a crash costs at most; default: 100,000, of pictures 10,000, of made ones "
              "1,000.")  # fmt: skip
@setting("--max-errors", metavar="N|P%", help="Fail with exit code 3 when more rows than this have errors.")
@setting("--limit", type=click.IntRange(min=1), help="Only the first N rows.")
@setting("--threads", type=click.IntRange(min=1), help="Processor threads; default: all this process may use.")
@setting("--workers", type=click.IntRange(min=1), metavar="N",
         help="Processes that share the parts and the threads, each with a model; default: one a GPU.")  # fmt: skip
@setting("--gpu-memory", type=click.FloatRange(min=0, min_open=True), metavar="GIB",
         help="The most that a process takes of a GPU; what does not fit is run in smaller batches.")  # fmt: skip
@setting(
    "--overwrite", is_flag=True, help="Replace what another job left, or this one finished; what it has begun goes on."
)
@setting("--verify", is_flag=True, help="Hash finished parts again; those that changed are made anew.")
@setting("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
         help="End with exit code 75 when the whole run takes longer.")  # fmt: skip
@setting("--stall-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
         help="End with exit code 75 when nothing gets done for so long, and say where it stands.")  # fmt: skip
@setting("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@setting("--metrics-file", type=Place(), help="Write what the run came to for Prometheus.")
@setting("--log-format", type=click.Choice(LOG_FORMATS), help="Lines on standard error.")
@setting("--quiet", is_flag=True, help="No progress on standard error; warnings and errors alone.")
@click.option("--config", type=Place(), callback=read_config, is_eager=True, expose_value=False,
              envvar="TFBATCH_CONFIG", help="A TOML file with any of these settings.")  # fmt: skip
def run(**settings: Any) -> None:
    """Score the rows of Parquet files.

    INPUT is a file, several, a pattern or a folder, of this machine or of an object store
    (s3://bucket/folder). Each row comes out once, in order, with its own columns and the prediction's;
    a row that cannot be scored has nulls and a reason in `error`.
    Run the same command again after a crash: it goes on where it was.

    Every option can be set by an environment variable too (TFBATCH_BATCH_TOKENS=1024) and in the
    --config file (batch-tokens = 1024); the command line comes first, then the environment.
    """
    from tfbatch.host.process import settle_heap

    settle_heap()  # before there is a second thread
    if settings["bundle"] is not None:
        from tfbatch.bundle import hash_ahead

        hash_ahead(settings["bundle"], settings["precision"])  # the imports that follow take as long
    from tfbatch.reporting.report import Report, what_failed

    report = Report(settings["metrics_file"], settings["log_format"])
    try:
        report.check()
        report.done(score_files(RunConfig(**settings), report))
    except Exception as error:  # noqa: BLE001 -- whatever it is, a scheduler is told
        exit_code, reason = what_failed(error)
        report.failed(exit_code, reason)
        sys.exit(exit_code)


def score_files(config: RunConfig, report: "Report") -> dict[str, Any]:
    """Settle the job and do it; what is imported here is what `tfbatch --help` does without."""
    from tfbatch.execution import output_of
    from tfbatch.execution import run as run_job
    from tfbatch.host.signals import Signals
    from tfbatch.host.standard_streams import tell
    from tfbatch.host.stop import Stop, Watchdog
    from tfbatch.job import begin_job
    from tfbatch.reporting.progress import choose_watcher, warn
    from tfbatch.reporting.tally import first_error
    from tfbatch.stages import every

    # As long as the job is not begun nothing is held, and a signal ends the process where it is.
    signals = Signals(lambda number: report.give_up(Interrupted(number)))
    stop = Stop()
    for name, meant in misspelt(os.environ).items():
        unknown = f"the environment has {name}, which is no setting; did you mean {meant}?"
        warn(unknown, log_format=config.log_format)
    watchdog = Watchdog(stop, config.timeout, config.stall_timeout, report.say_stacks, report.give_up)
    every(SECONDS_BETWEEN_LOOKS, watchdog.look)
    job = begin_job(config)
    if not job.bundle.is_verified:
        unverified = (
            f"{job.bundle.path} is unverified: not made by `tfbatch export`, which proves a graph equal to PyTorch"
        )
        warn(unverified, log_format=config.log_format)
    if (parts := len(job.plan.parts)) < job.workers:
        idle = (
            f"{parts} part(s) for {job.workers} workers: the others have nothing to do; fewer --rows-per-part make more"
        )
        warn(idle, log_format=config.log_format)
    if config.dry_run:
        output_of(job, stop).check(overwrite=config.overwrite)
        tell(job.describe())
        return {"status": "planned", "rows": job.plan.rows, "parts": len(job.plan.parts), "output": job.output}
    signals.ask_first(lambda number: stop.ask(Interrupted(number)))
    result = run_job(job, choose_watcher(quiet=config.quiet, log_format=config.log_format), report.tally, stop)
    if result["errors"]:
        bad = f"{result['errors']:,} of {result['rows']:,} rows have errors; {first_error(job, report.tally)}"
        warn(bad, log_format=config.log_format)
    return result


def report_asked_for(words: list[str]) -> "Report":
    """The report that a command line, the environment or a config file asks for, as far as they can be read."""
    from tfbatch.reporting.report import Report

    context = run.make_context("run", words, resilient_parsing=True, ignore_unknown_options=True)
    return Report(context.params["metrics_file"], context.params["log_format"] or "text")
