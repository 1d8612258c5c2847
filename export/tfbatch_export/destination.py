"""Where a bundle goes: what may be replaced there, and the change from an old one to the new.

Nothing but a bundle is ever replaced, and the old one is removed when the new one is in its place, not before.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tfbatch.bundle import is_plain_file
from tfbatch.bundles.manifest import MANIFEST
from tfbatch.errors import OutputFailed, OutputRefused
from tfbatch.host.durable import sync_folder

ASIDE = ".old"  # ends the name of the folder that an old bundle waits in, which a process that is killed leaves

OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # errors of writing


def real_path(path: Path) -> Path:
    """Where a path leads, by links and dots: a link to a bundle stays one when that is replaced."""
    return Path(os.path.realpath(path))


def refuse_place(place: Path, needed: Iterable[Path], *, is_replaced: bool) -> None:
    """Refuse what is at the real path of a bundle, unless it is a bundle that is to be replaced; `needed` are paths
    that must not go with it.

    Raises:
        OutputRefused: there is something else, or something besides.
    """
    if not place.exists():
        return
    if not place.is_dir():
        raise OutputRefused(f"{place} exists and is not a folder")
    if not is_replaced:
        raise OutputRefused(f"{place} exists; --overwrite replaces a bundle")
    for path in needed:
        if real_path(path).is_relative_to(place):
            raise OutputRefused(f"{place} is not replaced, since {path} is it or lies in it; choose another folder")
    entries = sorted(place.iterdir())
    if not entries:
        return
    if place / MANIFEST not in entries:
        raise OutputRefused(f"{place} exists and is not a bundle; choose another folder")
    names = named_files(place)
    if strange := [entry.name for entry in entries if entry.name not in names or not is_plain_file(entry)]:
        raise OutputRefused(
            f"{place} holds what is no file of the bundle's, {', '.join(strange)}; "
            f"take that away or choose another folder"
        )


def named_files(place: Path) -> set[str]:
    """The names of a bundle's files, of whatever format its manifest is: of an old one it is made again."""
    try:
        return {MANIFEST, *json.loads((place / MANIFEST).read_bytes())["files"]}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        raise OutputRefused(
            f"{place / MANIFEST} does not say which files are the bundle's; remove the folder or choose another"
        ) from None


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A folder beside a bundle's, on the same disk, to make it in; it goes with what is left in it.

    Raises:
        OutputRefused: there can be none.
        OutputFailed: the disk is full or fails while there is one.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent)
    except OSError as error:
        raise OutputRefused(f"no bundle can be made beside {place}: {error}") from error
    with scratch as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if error.errno not in OF_DISKS:
                raise
            raise OutputFailed(f"the bundle cannot be made beside {place}: {error.strerror}") from error


def move_in(folder: Path, place: Path, aside: Path) -> None:
    """Rename a finished folder to its place; what is there waits `aside` meanwhile, and comes back if that fails.

    Raises:
        OutputFailed: it cannot be renamed; or it was, and what was there cannot be removed.
    """
    try:
        sync_files(folder)
        try:
            if place.exists():
                place.rename(aside)
            folder.rename(place)
        except BaseException:  # a signal, too
            if aside.exists() and not place.exists():
                aside.rename(place)
            elif aside.exists() and not folder.exists():
                shutil.rmtree(aside)
            raise
        sync_folder(place.parent)
    except OSError as error:
        raise OutputFailed(f"the bundle cannot be put at {place}: {error}") from error
    try:
        if aside.exists():
            shutil.rmtree(aside)
    except OSError as error:
        raise OutputFailed(f"{place} is new, but the old bundle cannot be removed from {aside}: {error}") from error


def sync_files(folder: Path) -> None:
    """Make a folder of plain files durable."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
