"""Bundles are loaded by optimum, and folders that optimum and sentence-transformers make are run here: the same
numbers in both. The peers are real, in an environment that `make test-interchange` makes."""

import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SPECIAL, WORDS, export_once, read_output, run_tfbatch
from embedders import STEPS, TEXTS, make_embedder, say_how
from peers import CLASSES
from PIL import Image
from tfbatch.batches import Feeds, Window, arrays
from tfbatch.config import RunConfig
from tfbatch.foreign import open_bundle
from tfbatch.plan import Part
from tfbatch.runtimes.device import find_device, open_session
from tfbatch.tasks import load_task, task_names

pytestmark = pytest.mark.interchange

PYTHON = ROOT / "build" / "interchange" / "bin" / "python"
TASKS = [name for name in task_names() if name in CLASSES]
NEAR = 1e-5
Array = npt.NDArray[np.float32]


def ask_peer(*words: object) -> None:
    assert PYTHON.is_file(), "made by `make test-interchange`"
    command = [PYTHON, Path(__file__).parent / "peers.py", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr


def make_tagger(folder: Path) -> Path:
    """A BERT of 2 layers, 32 wide, with a label for each token."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizer

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, id2label={0: "O", 1: "B-PER", 2: "I-PER"},
    )  # fmt: skip
    BertForTokenClassification(config).save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Example:
    """A checkpoint, its bundle, and a column of cells that fit."""

    task: str
    checkpoint: Path
    bundle: Path
    cells: list[Any]


@pytest.fixture(scope="module", params=TASKS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    task, folder = request.param, tmp_path_factory.mktemp("interchange") / "checkpoint"
    match task:
        case "text-classification" | "image-classification":
            checkpoint = request.getfixturevalue(f"{task.split('-')[0]}_checkpoint")
            bundle = request.getfixturevalue(f"{task.split('-')[0]}_bundle")
        case "token-classification":
            checkpoint = make_tagger(folder)
            bundle = export_once(checkpoint)
        case "feature-extraction":
            checkpoint = make_embedder(folder)
            bundle = export_once(checkpoint)
    cells = [encoded(seed) for seed in range(5)] if task == "image-classification" else TEXTS
    return Example(task, checkpoint, bundle, cells)


def encoded(seed: int) -> bytes:
    """A picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def feeds_of(model: Path, cells: list[Any]) -> dict[str, npt.NDArray[np.generic]]:
    """All cells as one padded batch of model inputs, as `run` makes them."""
    bundle = open_bundle(model)
    table = pa.table({"cell": cells})
    task = load_task(bundle.manifest.task)(bundle, RunConfig(inputs=()), "cell")
    part = Part(file=0, first=0, stop=len(table), folder=PurePath(), identity="")
    work = task.prepare(Window(part=part, first=0, rows=table))
    return arrays(work.collate(np.arange(len(work.lengths)), int(work.lengths.max())))


def outputs_of(model: Path, task: str, feeds: Feeds, folder: Path) -> tuple[Array, Array]:
    """What this project and optimum make of model inputs with the same folder, of real tokens alone."""
    np.savez(folder / "feeds.npz", **feeds)
    ask_peer("run", task, model, folder / "feeds.npz", folder / "outputs.npy")
    session = open_session(model / "model.onnx", find_device("cpu"), output=CLASSES[task][1])
    found, optimums = session.run(feeds), np.load(folder / "outputs.npy")
    assert found.shape == optimums.shape
    real = feeds["attention_mask"].astype(bool) if found.ndim == 3 else slice(None)
    return found[real], optimums[real]


def run(model: Path, cells: list[Any], folder: Path) -> pa.Table:
    pq.write_table(pa.table({"cell": cells}), folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", model, "-o", folder / "out", "--overwrite")
    assert done.code == 0, done.err
    return read_output(folder / "out")


def compare(found: pa.Table, expected: pa.Table) -> None:
    """Numbers near, all else the same."""
    assert found.column_names == expected.column_names
    for one, other in zip(found.to_pylist(), expected.to_pylist(), strict=True):
        for name, value in one.items():
            if isinstance(value, float) or name == "embedding":
                np.testing.assert_allclose(np.array(value, float), np.array(other[name], float), atol=NEAR)
            elif name != "entities":  # their scores are within a struct; logits have been compared
                assert value == other[name]


def test_optimum_loads_a_bundle_and_computes_what_is_computed_here(example: Example, tmp_path: Path) -> None:
    feeds = feeds_of(example.bundle, example.cells)
    found, optimums = outputs_of(example.bundle, example.task, feeds, tmp_path)
    np.testing.assert_allclose(found, optimums, atol=NEAR)


@pytest.mark.parametrize("way", ["export", "save"])
def test_a_folder_that_optimum_makes_is_run(way: str, example: Example, tmp_path: Path) -> None:
    """To the numbers of optimum, and to those of the bundle of the same checkpoint."""
    foreign = tmp_path / "foreign"
    ask_peer(way, example.task, example.checkpoint, foreign)
    feeds = feeds_of(foreign, example.cells)
    expected = feeds_of(example.bundle, example.cells)
    assert {name: values.tolist() for name, values in feeds.items()} == {
        name: values.tolist() for name, values in expected.items()
    }
    found, optimums = outputs_of(foreign, example.task, feeds, tmp_path)
    np.testing.assert_allclose(found, optimums, atol=NEAR)
    ours, _ = outputs_of(example.bundle, example.task, feeds, tmp_path)
    np.testing.assert_allclose(found, ours, atol=NEAR)
    compare(run(foreign, example.cells, tmp_path), run(example.bundle, example.cells, tmp_path))


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_a_folder_that_sentence_transformers_makes_is_run(mode: str, tmp_path: Path) -> None:
    checkpoint, foreign = make_embedder(tmp_path / "checkpoint"), tmp_path / "foreign"
    pool_as(checkpoint, mode, 32, STEPS)
    ask_peer("save_sentences", "-", checkpoint, foreign)
    assert (foreign / "onnx" / "model.onnx").is_file()
    texts = [text for text in TEXTS if text is not None]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    ask_peer("embed", "onnx", foreign, tmp_path / "texts.json", tmp_path / "embeddings.npy")
    found = run(foreign, texts, tmp_path)["embedding"].to_pylist()
    np.testing.assert_allclose(found, np.load(tmp_path / "embeddings.npy"), atol=NEAR)
    compare(run(foreign, texts, tmp_path), run(export_once(checkpoint), texts, tmp_path))


def pool_as(checkpoint: Path, mode: str, width: int, steps: list[str]) -> None:
    """The files by which sentence-transformers pools a checkpoint's states."""
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(steps, paths, strict=False))
    ]
    switches = {"pooling_mode_mean_tokens": mode == "mean", "pooling_mode_cls_token": mode == "cls"}
    say_how(checkpoint, steps, {"word_embedding_dimension": width} | switches)
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "2_Normalize").mkdir(exist_ok=True)


@pytest.mark.parametrize("steps", [STEPS, STEPS[:2]], ids=["normalised", "as they come"])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_embeddings_of_a_thousand_real_rows_are_those_of_sentence_transformers(
    mode: str, steps: list[str], tmp_path: Path
) -> None:
    """With the weights of all-MiniLM-L6-v2, by PyTorch there."""
    source = ROOT / "build" / "checkpoints" / "minilm"
    assert source.is_dir(), "made by `make export-minilm`"
    checkpoint = tmp_path / "minilm"
    shutil.copytree(source, checkpoint)
    pool_as(checkpoint, mode, 384, steps)
    texts = pq.read_table(ROOT / "build" / "data" / "reviews.parquet")["text"].to_pylist()[:1000]
    found = np.array(run(export_once(checkpoint), texts, tmp_path)["embedding"].to_pylist(), np.float32)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    ask_peer("embed", "torch", checkpoint, tmp_path / "texts.json", tmp_path / "embeddings.npy")
    expected = np.load(tmp_path / "embeddings.npy")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / lengths).min() >= 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-4)
