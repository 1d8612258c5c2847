"""Print what the run stage installs, as `name==version` lines: tfbatch[cpu,openvino,cloud] and all that it pulls in."""

from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main() -> None:
    pinned: dict[str, str] = {}
    waiting = [("tfbatch", extra) for extra in ("cpu", "openvino", "cloud")]
    while waiting:
        package, extra = waiting.pop()
        for requirement in map(Requirement, requires(package) or ()):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            name = canonicalize_name(requirement.name)
            if wanted and name not in pinned:
                pinned[name] = version(name)
                waiting += [(name, extra) for extra in ("", *requirement.extras)]
    print(*(f"{name}=={pinned[name]}" for name in sorted(pinned)), sep="\n")


if __name__ == "__main__":
    main()
