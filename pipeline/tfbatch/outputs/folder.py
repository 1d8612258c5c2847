"""An output in a folder of this machine: names are given by links and renames, and synced."""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tfbatch.errors import OutputRefused, TryAgain
from tfbatch.host.durable import is_at, make_folder, replace_file, sync_folder
from tfbatch.host.hashes import sha256
from tfbatch.outputs.holder import describe
from tfbatch.outputs.storage import STATE

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # what file systems say that have none
LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """Storage in a folder, under a lock on a file in it."""

    def __init__(self, root: Path, beat: Callable[[], None] = lambda: None) -> None:
        self.name = str(root)
        self.spool = root / STATE / "tmp"
        self.beat = beat
        self._root = root
        self._lock = -1
        self._ask: Callable[[], None] | None = None  # whoever holds it for this process

    @property
    def _lock_path(self) -> Path:
        return self._root / STATE / "lock"

    def check(self) -> None:
        nearest = next(parent for parent in self._root.absolute().parents if parent.exists())
        if not nearest.is_dir():
            raise OutputRefused(f"output {self.name} cannot be used: {nearest} is not a folder")
        if self._root.exists() and not self._root.is_dir():
            raise OutputRefused(f"output {self.name} exists and is not a folder")
        if self._root.is_symlink() and not self._root.exists():
            raise OutputRefused(f"output {self.name} is a link to a folder that is not there; make that first")
        # In this order: another job may be making the folder its own just now.
        if self._root.is_dir() and any(self._root.iterdir()) and not (self._root / STATE).is_dir():
            raise OutputRefused(
                f"output {self.name} holds files that are not tfbatch's, or its {STATE} is gone; choose another with -o"
            )

    def hold(self) -> None:
        make_folder(self._root / STATE)
        self._take_lock()  # nothing else is touched before
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir()

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def descriptors(self) -> list[int]:
        return [] if self._lock < 0 else [self._lock]

    def join(self, spool: Path, ask: Callable[[], None]) -> None:
        self.spool, self._ask = spool, ask
        self.spool.mkdir()

    def ensure_held(self) -> None:
        """The lock lasts as long as the process, if the folder does."""
        if self._ask is not None:
            self._ask()
        elif self._lock >= 0 and not is_at(self._lock, self._lock_path):
            raise TryAgain(f"output {self.name} was removed or moved while it was written; run the same command again")

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, text: str) -> None:
        path = self._root / name
        make_folder(path.parent)
        replace_file(path, text, spool=self.spool)

    def publish(self, spooled: Path, name: str) -> None:
        final = self._root / name
        make_folder(final.parent)
        try:
            os.link(spooled, final, follow_symlinks=False)
            spooled.unlink()
        except FileExistsError:  # linked before a crash, but not recorded: it is this very content
            spooled.replace(final)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            spooled.replace(final)
        sync_folder(final.parent)

    def publish_folder(self, spooled: Path, name: str) -> None:
        sync_files(spooled)
        final = self._root / name
        make_folder(final.parent)
        left = spooled.with_suffix(".left")
        if final.exists():
            final.rename(left)  # removed where it is, it would be there in part for a while
        spooled.rename(final)
        sync_folder(final.parent)
        shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Where a content is."""
        return self._root / name

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def sha256(self, name: str) -> str:
        return sha256(self._root / name, self.beat)

    def files(self, folder: str = "") -> Iterator[str]:
        for path, _, names in os.walk(self._root / folder, onerror=raise_unless_missing):
            self.beat()
            for name in names:
                yield (Path(path) / name).relative_to(self._root).as_posix()

    def remove(self, *names: str) -> None:
        for path in (self._root / name for name in names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            self.beat()

    def _take_lock(self) -> None:
        self._lock = os.open(self._lock_path, LOCK_FLAGS, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 1000).decode(errors="replace").strip()
            raise TryAgain(f"output {self.name} is being written by {holder or 'another process'}") from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{describe()}\n".encode())


def raise_unless_missing(error: OSError) -> None:
    """What cannot be listed is not empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def sync_files(folder: Path) -> None:
    """Make a folder and all files in it durable, at one go where the system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        whole_system = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if whole_system is None:
            os.sync()
        elif whole_system(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)
