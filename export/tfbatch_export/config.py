"""What `tfbatch export` can be asked for, and what is refused before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path

from tfbatch.config import RunConfig
from tfbatch.errors import NoInput, UsageError

from tfbatch_export.destination import real_path, refuse_place

POOLINGS = ("cls", "mean")  # of pictures: the state of the class token, or the mean of the patches'


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What `tfbatch export` was asked to do."""

    model: str
    output: Path
    task: str | None = None
    revision: str | None = None
    samples: Path | None = None
    samples_column: str | None = None
    samples_pair_column: str | None = None
    samples_labels: tuple[str, ...] | None = None
    fp16: bool = False
    pooling: str | None = None
    normalise: bool = False
    int8: bool = False
    overwrite: bool = False

    @property
    def of_samples(self) -> RunConfig:
        """How the samples are read."""
        return RunConfig(
            inputs=(),
            input_column=self.samples_column,
            text_pair_column=self.samples_pair_column,
            labels=self.samples_labels,
        )

    @property
    def needed(self) -> list[Path]:
        """What is read while a bundle is made, and where: none of it is replaced by that."""
        return [Path.cwd(), Path(self.model), *([] if self.samples is None else [self.samples])]

    @property
    def precisions(self) -> list[str]:
        """Float32, and those asked for beside it."""
        return ["fp32", *(precision for precision in ("fp16", "int8") if getattr(self, precision))]

    def check(self) -> Path:
        """Refuse samples that are needed and not named, named and not there, or not named and told how to be read,
        and what is at the bundle's place; the place, whatever links lead there.

        Raises:
            UsageError, NoInput: of the samples.
            OutputRefused: see `refuse_place`.
        """
        if self.int8 and self.samples is None:
            raise UsageError(
                "--int8 needs --samples FILE.parquet: 8-bit steps are found and labels compared on real rows"
            )
        if self.samples is None and any((self.samples_column, self.samples_pair_column, self.samples_labels)):
            raise UsageError("--samples-column, -pair-column and -labels say how --samples is read: name that too")
        if self.samples is not None and not self.samples.is_file():
            raise NoInput(f"--samples {self.samples} does not exist")
        place = real_path(self.output)
        refuse_place(place, self.needed, is_replaced=self.overwrite)
        return place
