"""The wheel alone, and what the documents say."""

import re
import subprocess
import sys
import venv
from itertools import takewhile
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, tfbatch_env
from tfbatch import errors
from tfbatch.cli import cli

README = (ROOT / "README.md").read_text()


def test_the_wheel_alone_with_a_runtime_runs_a_bundle(text_bundle: Path, tmp_path: Path) -> None:
    def call(*words: object) -> subprocess.CompletedProcess[str]:
        environment = tfbatch_env({"PYTHONPATH": ""})
        return subprocess.run(
            [*map(str, words)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )

    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]")
    pq.write_table(pa.table({"text": ["good film", None]}), tmp_path / "in.parquet")
    call(tmp_path / "venv" / "bin" / "tfbatch", "run", "in.parquet", "-m", text_bundle)
    table = pq.read_table(next((tmp_path / "in-predictions").glob("part-*")))
    assert table["error"].null_count == 1
    listed = call(python, "-m", "pip", "list").stdout
    assert not re.search(r"^(torch|transformers|optimum|onnx) ", listed, re.MULTILINE)


def test_the_readme_names_every_option_of_run() -> None:
    command = cli.commands["run"]
    options = [name for option in command.params if isinstance(option, click.Option) for name in option.opts]
    missing = [name for name in options if name.startswith("--") and f"`{name}" not in README]
    assert not missing


def test_the_readme_names_every_error_of_rows() -> None:
    files = (ROOT / "pipeline" / "tfbatch").rglob("*.py")
    said = r'(?:\b[A-Z0-9_]+ = |UnfitPicture\(\s*|return )f?"([a-z_0-9]+): '
    codes = {code for file in files for code in re.findall(said, file.read_text())}
    named = README[README.index("### Errors of rows") : README.index("### Exit codes")]
    assert set(re.findall(r"^\| `([a-z_0-9]+)` \|", named, re.MULTILINE)) == codes


def test_the_readme_names_every_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TfbatchError)]
    codes = {kind.exit_code for kind in kinds} | {129, 130, 143}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == codes | {0}


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {
        "export-bert",
        "export-vit",
    }
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_option_in_the_readmes_commands_exists() -> None:
    known = {name for command in cli.commands.values() for option in command.params for name in option.opts}
    from tfbatch_export.cli import export, verify

    known |= {name for command in (export, verify) for option in command.params for name in option.opts}
    used = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", README))
    assert used <= known | {"--help"}


@pytest.mark.parametrize("target", ["export-bert", "export-vit", "export"])
def test_make_exports_the_model_it_is_given(target: str) -> None:
    words = ["make", "--dry-run", "--directory", str(ROOT), target, "MODEL=some/model/", "OUT=some/bundle"]
    planned = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in planned if "tfbatch export" in line] == [
        ".venv/bin/tfbatch export some/model/ -o some/bundle"
    ]


@pytest.mark.parametrize("package", ["pipeline/tfbatch", "export/tfbatch_export"])
def test_the_map_in_the_readme_names_every_file_and_folder_beside_the_flow(package: str) -> None:
    _, part = README.split(f"\n    {package}/\n")
    lines = [line[6:].split("  ")[0] for line in takewhile(lambda line: line.startswith("      "), part.splitlines())]
    named = {name for line in lines for name in line.split(", ")}
    assert named == {f"{file.name}{'/' * file.is_dir()}" for file in (ROOT / package).glob("[!_]*")}
