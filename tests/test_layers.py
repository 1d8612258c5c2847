"""The run stage stands alone, and its files import only what comes before them."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT, run_tfbatch, tfbatch_env
from tfbatch.batching.cells import KINDS
from tfbatch.config import RunConfig
from tfbatch.tasks import load_task, task_names

HEAVY = ("torch", "transformers", "optimum", "onnx", "onnxscript", "onnx_ir", "tfbatch_export")
# Each stage's files and folders, of which every one imports only what stands before it, or with it.
RUN = [
    *["errors", "clock", "stages", "host", "config"],  # for all that follows
    *["inputs", "plan", "bundles", "bundle", "foreign"],  # what is read, and the model
    *["results", "batches", "reader", "writer", "session", "batching", "runtimes"],  # rows in, results out
    *["text", "pictures", "predictions", "outputs", "tasks"],  # what rows are, become, and where they go
    *["choices", "job", "scoring", "reporting", "probe", "steps", "flow"],  # a job, and a row's way through it
    *["workers", "execution", "commands", "cli"],
]
EXPORT = [
    *["destination", "config", "checkpoints", "rewrites", "fuse", "trace"],
    *["families heads", "checkpoint", "samples"],  # a family of texts has all heads
    *["ranges", "precision", "distance", "parity", "quantization", "graphs", "export", "verify", "cli", "page"],
]


def modules(package: Path) -> dict[str, Path]:
    """A package's modules, by their names within it; a folder's own name is its `__init__`."""
    files = {file.relative_to(package).with_suffix(""): file for file in package.rglob("*.py")}
    names = {".".join(part for part in path.parts if part != "__init__"): file for path, file in files.items()}
    return {name: file for name, file in names.items() if name not in ("", "__main__")}


def imports(package: str, file: Path, names: set[str]) -> set[str]:
    """Modules of a package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(f"{package}.") for alias in node.names}
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            within = str(node.module).removeprefix(package).removeprefix(".")
            found |= {f"{within}.{alias.name}".removeprefix(".") for alias in node.names} | {within}
    return found & names


@pytest.mark.parametrize(("package", "order"), [("pipeline/tfbatch", RUN), ("export/tfbatch_export", EXPORT)])
def test_every_file_imports_only_from_the_layers_before_it(package: str, order: list[str]) -> None:
    files = modules(ROOT / package)
    graph = {name: imports(Path(package).name, file, set(files)) for name, file in files.items()}
    rank = {name: level for level, names in enumerate(order) for name in names.split()}
    assert {name.split(".")[0] for name in files} == set(rank)
    for name, imported in graph.items():
        for other in imported:
            above, below = name.split(".")[0], other.split(".")[0]
            assert above == below or rank[below] <= rank[above], f"{name} imports {other}"
    TopologicalSorter(graph).prepare()  # within a folder too, none imports what imports it


@pytest.mark.parametrize("network", ["network", "no network"])
@pytest.mark.parametrize("bundle_and_input", ["text", "image"])
def test_run_works_where_the_export_stage_cannot_be_imported(
    bundle_and_input: str, network: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bundle = request.getfixturevalue(f"{bundle_and_input}_bundle")
    cells = ["good film"] if bundle_and_input == "text" else [request.getfixturevalue("picture")()]
    pq.write_table(pa.table({"cell": cells}), tmp_path / "in.parquet")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n"
        "from tfbatch.cli import main; from tfbatch.tasks import load_task, task_names\n"
        "[load_task(name) for name in task_names()]; main()"
    )
    words = ["run", tmp_path / "in.parquet", "-m", bundle, "-o", tmp_path / "out", "--quiet"]
    if network == "no network" and not can_unshare():
        pytest.skip("this machine does not let a process leave its network (unshare -rn)")
    offline = ["unshare", "-rn"] if network == "no network" else []
    command = [*offline, sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def can_unshare() -> bool:
    """Whether a process may be given a network of its own, without any interface."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from tfbatch.cli import cli; cli.main(['--help'], standalone_mode=False);"
        "print('HEAVY', sorted({'numpy', 'pyarrow', 'onnxruntime', 'tokenizers', 'PIL', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=tfbatch_env(), capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in done.stdout
    for command in ("doctor", "export", "inspect", "run", "tasks", "verify"):
        assert f"  {command} " in done.stdout


def test_the_export_command_says_what_to_install_where_its_packages_are_missing(tmp_path: Path) -> None:
    program = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else real(name, *a)\n"
        "from tfbatch.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "export", "x", "-o", str(tmp_path / "y")]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install 'tfbatch[export]'" in done.stderr) == (78, True)


@pytest.mark.parametrize("name", task_names())
def test_every_task_keeps_the_contract(name: str) -> None:
    task = load_task(name)
    assert task.kind in KINDS
    assert task.window_rows > 0
    assert set(task.options) <= set(RunConfig.__dataclass_fields__)
    assert set(task.side_columns) <= set(task.options)
    assert set(task.side_columns.values()) <= set(KINDS)
    assert isinstance(task.prepares_in_parallel, bool)
    assert "error" not in task.columns(RunConfig(inputs=())).names


def test_tasks_are_listed_with_their_columns() -> None:
    listed = run_tfbatch("tasks").out
    for name in task_names():
        assert name in listed
    assert "adds predicted_label: string" in listed


def test_arrow_finds_no_pandas_in_a_run_and_others_do() -> None:
    pytest.importorskip("pandas")
    program = (
        "import sys, numpy, pyarrow; from tfbatch.host.process import do_without_pandas; do_without_pandas()\n"
        "pyarrow.array(numpy.zeros(3)); pyarrow.array([1, 2]).fill_null(0)\n"
        "assert 'pandas' not in sys.modules; import pandas; assert pandas.Series([1]).sum() == 1"
    )
    subprocess.run([sys.executable, "-c", program], env=tfbatch_env(), check=True)
