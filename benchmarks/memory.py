"""The most memory that this process and those it started have held, each at its own worst moment."""

from pathlib import Path


def peak_memory() -> int:
    """Bytes: VmHWM of this process and of all its living descendants, added up."""
    parents, peaks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:  # it has ended meanwhile
            continue
        process = int(fields["Pid"])
        parents[process] = int(fields["PPid"])
        peaks[process] = int(fields.get("VmHWM", "0 kB").split()[0]) * 1024
    own = int(Path("/proc/self").readlink().name)
    family = [process for process in parents if own in ancestors(process, parents)]
    return sum(peaks[process] for process in family)


def ancestors(process: int, parents: dict[int, int]) -> set[int]:
    """A process, its parent, and so on."""
    found = set()
    while process in parents:
        found.add(process)
        process = parents[process]
    return found
