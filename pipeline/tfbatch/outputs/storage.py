"""Where an output lies: what a folder of this machine and one in an object store have in common.

Contents have names (`_images/part-.../0000000001.png`) below the output and are there whole or not
at all. What is large is first a file in the spool, a local folder.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tfbatch.inputs.addresses import scheme_of

STATE = "_tfbatch"  # the folder with all that is not output


class Storage(Protocol):
    """All methods raise OSError where the disk or the store fails, FileNotFoundError where a name is
    not there. `name` is what messages call it, `spool` is empty when it is held. What takes long
    calls `beat` now and then, which raises where the job is asked to end."""

    name: str
    spool: Path
    beat: Callable[[], None]

    @property
    def descriptors(self) -> list[int]:
        """Open files that keep it held as long as any process has them."""

    def check(self) -> None:
        """Refuse a place that cannot be an output's, or holds what is not tfbatch's; touch nothing.

        Raises:
            OutputRefused: why not.
        """

    def hold(self) -> None:
        """Make it if need be and keep all others from writing to it, until `release`.

        Raises:
            TryAgain: another process does so.
        """

    def release(self) -> None:
        """Let others write."""

    def join(self, spool: Path, ask: Callable[[], None]) -> None:
        """Write for the process that holds it, by way of a new spool; what counts, that process alone records, and
        it is asked whether it is still held."""

    def ensure_held(self) -> None:
        """Before something gets its name or is recorded as finished.

        Raises:
            TryAgain: it is held no more.
        """

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, text: str) -> None:
        """Put a small content in the place of what is there, durably."""

    def publish(self, spooled: Path, name: str) -> None:
        """Give a file of the spool its name, durably."""

    def publish_folder(self, spooled: Path, name: str) -> None:
        """Give a folder of files of the spool its name, durably, in the place of what is there."""

    def size(self, name: str) -> int:
        """In bytes."""

    def sha256(self, name: str) -> str:
        """In hex digits."""

    def files(self, folder: str = "") -> Iterator[str]:
        """The names of all contents below a folder, from the output on; none where it is not there."""

    def remove(self, *names: str) -> None:
        """Remove contents, or folders with all in them, where they are there, in any order."""


def is_one_file(output: str) -> bool:
    """Whether an output is to be a single file of this machine."""
    path = Path(output)
    named = path.suffix.lower() == ".parquet" and not output.endswith("/")
    return scheme_of(output) is None and named and not path.is_dir()
