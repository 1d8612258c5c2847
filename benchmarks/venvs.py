"""The environments of the contenders: `build/benchmarks/venvs/<name>`, from `requirements/<name>.txt`."""

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.workloads import HERE, ROOT


def python_of(name: str | None) -> Path:
    """The interpreter of an environment, which is made first where it is not there or its file changed."""
    if name is None:
        return Path(sys.executable)
    folder = HERE / "venvs" / name
    requirements = ROOT / "benchmarks" / "requirements" / f"{name}.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    installed = folder / "installed"
    if not installed.is_file() or installed.read_text(encoding="utf-8") != wanted:
        make(folder, requirements)
        installed.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def make(folder: Path, requirements: Path) -> None:
    print(f"installing {requirements.relative_to(ROOT)} into {folder.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-deps", "--requirement", requirements], check=True)
