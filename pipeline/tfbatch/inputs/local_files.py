"""Input files of this machine, by a path or a pattern. Links are followed, and each file is found once."""

import glob
import os
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from tfbatch.inputs.addresses import HIDDEN, is_data

ANY_DEPTH = re.compile(r"(?:^|(?<=/))\*\*(?:/|$)")
RECOVERED = "lost+found"  # at the root of a disk, for root alone


def matches(text: str) -> list[Path]:
    """The file or folder of this name, or those that match it as a pattern, in order of name."""
    if Path(text).exists():
        return [Path(text)]
    return [Path(match) for match in sorted(set(_matched(text)))]


def files_of(found: Iterable[Path]) -> list[Path]:
    """These files, and the Parquet files of these folders at any depth, in order of name.

    A file of several names has the one that leads over the fewest links, which says what Hive folder its rows are of.
    """
    names: dict[Path, set[Path]] = defaultdict(set)
    for match in found:
        if match.is_file():
            names[match.resolve()].add(match)
        else:
            for real, file in _data_below(match):
                names[real].add(file)
    return sorted(min(some, key=_directness) if len(some) > 1 else min(some) for some in names.values())


def real_folders(text: str) -> list[Path]:
    """The real paths of folders all of whose files are taken in: those that match, or that a pattern looks below at
    any depth, and what links in them lead to."""
    places: list[Path] = []
    below = ANY_DEPTH.search(text)
    tops = [match for match in matches(text) if match.is_dir()]
    for top in [*tops, *([] if below is None else map(Path, _tops(text[: below.start()])))]:
        for _, real, _ in _folders(top):
            if not any(real.is_relative_to(place) for place in places):
                places.append(real)
    return places


def _matched(text: str) -> Iterator[str]:
    """What matches a pattern; where ** stands each folder is looked at once, whatever links lead to it."""
    below = ANY_DEPTH.search(text)
    if below is None:
        yield from glob.glob(text)  # noqa: PTH207 -- may be absolute
        return
    before, after = text[: below.start()], text[below.end() :]
    for top in _tops(before):
        for folder, _, _ in _folders(Path(top)):
            if not after:
                yield str(folder)
            if after or not text.endswith("/"):
                yield from _matched(os.path.join(glob.escape(str(folder)), after or "*"))  # noqa: PTH118 -- a pattern


def _tops(before: str) -> list[str]:
    """The folders that match what stands before a **."""
    return glob.glob(before) if before else ["."]  # noqa: PTH207 -- may be absolute


def _data_below(top: Path) -> Iterator[tuple[Path, Path]]:
    """The Parquet files below a folder, each by its real path and its name."""
    for folder, real, names in _folders(top, HIDDEN):
        for file in (folder / name for name in names if name.lower().endswith(".parquet") and is_data(PurePath(name))):
            if file.is_file():
                yield (file.resolve() if file.is_symlink() else real / file.name), file


def _folders(top: Path, hidden: tuple[str, ...] = (".",)) -> Iterator[tuple[Path, Path, list[str]]]:
    """A folder and all below it but those whose names begin as `hidden` ones do, each with its real path and the names
    in it that are no folder's.

    First come those that no link leads to, then those that links do; none comes twice, nor one that top, or the
    folder that the link is in, lies in.
    """
    root, seen = top.resolve(), set[Path]()
    tops = deque([top])
    while tops:
        for name, names, files in os.walk(tops.popleft(), onerror=_refuse):
            folder = Path(name)
            if (real := folder.resolve()) in seen:
                names.clear()
                continue
            seen.add(real)
            names[:] = sorted(name for name in names if not name.startswith(hidden) and name != RECOVERED)
            for link in (folder / name for name in names if (folder / name).is_symlink()):
                above = link.resolve()
                if not real.is_relative_to(above) and not root.is_relative_to(above):
                    tops.append(link)
            yield folder, real, files


def _directness(file: Path) -> tuple[int, Path]:
    return sum(part.is_symlink() for part in (file, *file.parents)), file


def _refuse(error: OSError) -> None:
    """What cannot be listed is not empty."""
    raise error
