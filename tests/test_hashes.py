"""A graph may be hashed ahead; what is taken for its hash is that of the file as it is when it is asked for."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_tfbatch, tfbatch_env
from tfbatch import bundle
from tfbatch.bundle import hash_ahead, load_bundle
from tfbatch.errors import BadConfiguration
from tfbatch.host import hashes
from tfbatch.host.hashes import BLOCK, keep_sha256, kept_sha256


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One of more than a block, written long ago."""
    path = tmp_path / "graph"
    path.write_bytes(b"a" * (BLOCK + 1))
    os.utime(path, (0, 0))
    return path


def test_what_was_kept_is_taken_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_sha256(file)
    with monkeypatch.context() as patched:
        patched.setattr(hashes, "_sha256", None)  # it is not hashed again
        assert kept_sha256(file) == digest(b"a" * (BLOCK + 1))
    assert kept_sha256(file) == digest(b"a" * (BLOCK + 1))


def test_a_file_that_was_written_to_since_is_hashed_again(file: Path) -> None:
    keep_sha256(file)
    file.write_bytes(b"b" * (BLOCK + 1))
    assert kept_sha256(file) == digest(b"b" * (BLOCK + 1))


def test_a_file_put_in_place_since_is_hashed_itself(file: Path) -> None:
    keep_sha256(file)
    other = file.with_name("other")
    other.write_bytes(b"b" * (BLOCK + 1))
    os.utime(other, (0, 0))
    other.rename(file)
    assert kept_sha256(file) == digest(b"b" * (BLOCK + 1))


def test_a_file_that_cannot_be_hashed_ahead_keeps_nobody_waiting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        keep_sha256(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        kept_sha256(tmp_path / "missing")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is hashed ahead, without a thread."""
    paths: list[Path] = []
    monkeypatch.setattr(bundle, "start_thread", lambda work: work())
    monkeypatch.setattr(bundle, "keep_sha256", lambda path: (paths.append(path), keep_sha256(path)))
    return paths


def test_a_graph_that_was_hashed_ahead_is_checked(text_bundle: Path, tmp_path: Path, kept: list[Path]) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for each in text_bundle.iterdir():
        (copy / each.name).write_bytes(each.read_bytes())
    hash_ahead(copy, "auto")
    assert load_bundle(copy).graph_path("fp32") == copy / "model.onnx"
    with (copy / "model.onnx").open("r+b") as graph:
        graph.write(b"another")
    hash_ahead(copy, "bf16")  # whose graph is that in fp32
    assert kept == [copy / "model.onnx"] * 2
    with pytest.raises(BadConfiguration, match="not the file that was verified"):
        load_bundle(copy).graph_path("fp32")


def test_turns_are_short_while_a_graph_is_hashed_and_no_longer(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(bundle, "start_thread", lambda work: work())
    monkeypatch.setattr(bundle, "keep_sha256", lambda _: turns.append(sys.getswitchinterval()))
    usual = sys.getswitchinterval()
    hash_ahead(text_bundle, "auto")
    assert turns == [pytest.approx(bundle.TURN)]
    assert sys.getswitchinterval() == usual > bundle.TURN


@pytest.mark.parametrize("name", ["../model.onnx", "link.onnx", "hard.onnx", "missing.onnx", ".", "", "\0", 1, None])
def test_nothing_but_a_file_of_the_bundle_is_hashed_ahead(
    name: object, text_bundle: Path, tmp_path: Path, kept: list[Path]
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "model.onnx").write_bytes(b"not the bundle's")
    (folder / "link.onnx").symlink_to(tmp_path / "model.onnx")
    (folder / "hard.onnx").hardlink_to(tmp_path / "model.onnx")
    manifest = json.loads((text_bundle / "tfbatch.json").read_text())
    manifest["graphs"]["fp32"]["file"] = name
    (folder / "tfbatch.json").write_text(json.dumps(manifest))
    for precision in ("auto", "int8"):
        hash_ahead(folder, precision)
    hash_ahead(tmp_path / "no bundle", "auto")
    assert kept == []


def test_a_run_hashes_its_graph_ahead(text_bundle: Path, reviews: Path, tmp_path: Path) -> None:
    program = (
        "import tfbatch.bundle as bundle\n"
        "bundle.hash_ahead = lambda *words: print('ahead', *words, flush=True)\n"
        "from tfbatch.cli import main; main()"
    )
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], env=tfbatch_env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"ahead {text_bundle} auto\n")


def test_a_bundle_is_read_without_what_takes_long_to_import() -> None:
    program = "import sys, tfbatch.bundle; sys.exit(bool({'numpy', 'pyarrow'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], env=tfbatch_env(), check=True)


def test_a_bundle_that_does_not_answer_ends_at_the_time_limit(reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    os.mkfifo(tmp_path / "bundle" / "tfbatch.json")
    assert run_tfbatch("run", reviews, "-m", tmp_path / "bundle", "-o", tmp_path / "out", "--timeout", 2).code == 75
