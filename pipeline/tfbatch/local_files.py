"""Input files of this machine, by a path or a pattern."""

import glob
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePath

from tfbatch.addresses import is_data

RECOVERED = "lost+found"  # at the root of a disk, for root alone


def matches(text: str) -> list[Path]:
    """The file or folder of this name, or those that match it as a pattern."""
    if Path(text).exists():
        return [Path(text)]
    return [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 -- may be absolute


def files_below(path: Path) -> list[Path]:
    """A file itself, or a folder's Parquet files at any depth, in order of name. Links are followed, each file is
    found once, and by its own name rather than a link's: that says which Hive folder its rows are of."""
    if path.is_file():
        return [path]
    found: dict[Path, Path] = {}
    for file in sorted(_walked(path), key=Path.is_symlink):
        if file.suffix == ".parquet" and is_data(PurePath(file.name)) and file.is_file():
            found.setdefault(file.resolve(), file)
    return sorted(found.values())


def _walked(path: Path) -> Iterator[Path]:
    """What is no folder below one, then below those that links lead to; none is walked twice, nor one above it."""
    seen: set[Path] = set()
    tops = deque([path])
    while tops:
        top = tops.popleft()
        if top != path and path.resolve().is_relative_to(top.resolve()):
            continue
        for folder, names, files in os.walk(top, onerror=_refuse):
            here = Path(folder)
            if (real := here.resolve()) in seen:
                names.clear()
                continue
            seen.add(real)
            names[:] = sorted(name for name in names if is_data(PurePath(name)) and name != RECOVERED)
            tops += [here / name for name in names if (here / name).is_symlink()]
            yield from (here / name for name in files)


def _refuse(error: OSError) -> None:
    """What cannot be listed is not empty."""
    raise error
