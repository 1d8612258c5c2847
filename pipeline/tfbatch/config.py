"""Every setting of a run and its default, once. The command line, the environment and the config
file all end here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Literal

from tfbatch.errors import UsageError

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")
IMAGE_SINKS = ("column", "files", "both")
IMAGE_FORMATS = ("png", "jpeg", "webp")
EMBEDDING_TYPES = ("float32", "float16")
OVERFLOWS = ("truncate", "stride")
AGGREGATIONS = ("none", "simple", "first", "average", "max")
LOG_FORMATS = ("text", "json")
PATHS = ("output", "bundle", "models", "metrics_file")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What `tfbatch run` was asked to do. None means: found out from the data or the machine."""

    inputs: tuple[str, ...]
    bundle: Path | None = None
    models: Path = Path("models")
    output: str | None = None
    input_column: str | None = None
    task: str | None = None
    device: str = "auto"
    precision: str = "auto"
    text_pair_column: str | None = None
    max_length: int | None = None
    overflow: str = "truncate"
    stride: int | None = None
    aggregation: str = "simple"
    question_column: str = "question"
    handle_impossible: bool = False
    max_answer_length: int = 15
    batch_tokens: int | Literal["auto"] | None = None
    keep_columns: str | tuple[str, ...] = "all"
    all_scores: bool = False
    top_k: int | None = None
    threshold: float | None = None
    dimensions: int | None = None
    embedding_type: str = "float32"
    labels: tuple[str, ...] | None = None
    label_template: str | None = None
    multi_label: bool = False
    exact_decoding: bool = False
    mask_ratio: float | None = None
    mask_column: str | None = None
    seed: int = 0
    keep_mask: bool = False
    original_size: bool = False
    images: str = "column"
    image_format: str = "png"
    image_quality: int | None = None
    contact_sheet: int | None = None
    prefix: str = ""
    rows_per_part: int | None = None
    max_errors: str | None = None
    limit: int | None = None
    threads: int | None = None
    workers: int | None = None
    gpu_memory: float | None = None
    overwrite: bool = False
    verify: bool = False
    timeout: float | None = None
    stall_timeout: float | None = None
    dry_run: bool = False
    metrics_file: Path | None = None
    log_format: str = "text"
    quiet: bool = False

    def __post_init__(self) -> None:
        self._refuse_empty()
        self._refuse_endless()
        self._refuse_homes()
        if self.all_scores and self.top_k:
            raise UsageError("--all-scores and --top-k exclude each other: all scores are the top of all labels")
        if self.text_pair_column is not None and self.overflow == "stride":
            raise UsageError("--overflow stride is for single texts; of a pair the longer one is cut")
        if self.mask_ratio is not None and self.mask_column is not None:
            raise UsageError("--mask-ratio and --mask-column exclude each other: a mask says what is hidden")
        if self.mask_column is not None and not self.is_default("seed"):
            raise UsageError("--seed and --mask-column exclude each other: a mask leaves nothing to chance")
        if self.image_quality is not None and self.image_format == "png":
            raise UsageError("--image-quality is for --image-format jpeg or webp; png loses nothing")
        error_limit(self.max_errors, 0)

    def _refuse_empty(self) -> None:
        """Refuse texts that are empty, as those of a variable that is not set."""
        for name in self.__dataclass_fields__:
            if getattr(self, name) == "" and not self.is_default(name):
                raise UsageError(f"{option_of(name)} is empty")
        if "" in self.inputs:
            raise UsageError("an input is empty")

    def _refuse_endless(self) -> None:
        """Refuse nan and inf, which click and a config file take for numbers."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not isfinite(value):
                raise UsageError(f"{option_of(name)} {value} is no finite number")

    def _refuse_homes(self) -> None:
        """Refuse paths with a ~ that no shell has replaced: pyarrow would, nobody else."""
        named = [(option_of(name), str(path)) for name in PATHS if (path := getattr(self, name)) is not None]
        for what, path in [*(("input", path) for path in self.inputs), *named]:
            if os.path.expanduser(path) != path:  # noqa: PTH111 -- which Path's own fails to do of unknown users
                raise UsageError(f"{what} {path}: only a shell knows what ~ is; write the whole path")

    def is_default(self, name: str) -> bool:
        """Whether a setting was left as it is."""
        return bool(getattr(self, name) == self.__dataclass_fields__[name].default)

    def kept_columns(self, names: list[str]) -> list[str]:
        """The input columns that the output repeats, in the file's order.

        Raises:
            UsageError: a name that the input does not have.
        """
        if self.keep_columns in ("all", "none"):
            return names if self.keep_columns == "all" else []
        asked = self._asked_columns(names)
        if unknown := [name for name in asked if name not in names]:
            raise UsageError(f"--keep-columns names {', '.join(unknown)}, but the input has: {', '.join(names)}")
        return [name for name in names if name in asked]

    def _asked_columns(self, names: list[str]) -> Sequence[str]:
        """A list as it is; of a text its parts, unless all of it is a name, which may hold commas and blanks."""
        if not isinstance(self.keep_columns, str):
            return self.keep_columns
        return [self.keep_columns] if self.keep_columns in names else list(map(str.strip, self.keep_columns.split(",")))


def error_limit(max_errors: str | None, rows: int) -> int:
    """How many of `rows` may fail: all without a limit, a count, or a percentage of them.

    Raises:
        UsageError: neither a count nor a percentage.
    """
    if max_errors is None:
        return rows
    try:
        if max_errors.endswith("%"):
            percent = Decimal(max_errors[:-1])
            if 0 <= percent <= 100:
                return int(percent * rows / 100)
        elif int(max_errors) >= 0:
            return int(max_errors)
    except (ValueError, ArithmeticError):
        pass
    raise UsageError(f"--max-errors is a count such as 100 or a percentage such as 1%, not {max_errors}")


def option_of(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")
