"""What is done for GPUs, by onnxruntime's processor provider: it binds inputs and results in the same way."""

import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import read_output, tfbatch_env, write_reviews
from tfbatch.batches import Feeds, Pictures
from tfbatch.batching.cutting import cut
from tfbatch.bundles.pooling import Pooling
from tfbatch.bundles.tiny_graph import FLOAT, best_logits, describe, level_table, model, node, tensor
from tfbatch.config import RunConfig
from tfbatch.errors import Interrupted
from tfbatch.host.nvidia import allocate_pinned
from tfbatch.host.stop import Stop
from tfbatch.job import make_job
from tfbatch.pictures.pixels import normalised_levels
from tfbatch.runtimes.bound_session import BESIDE, Binding, BoundSession
from tfbatch.runtimes.device import find_device, open_session
from tfbatch.runtimes.onnxruntime_session import OnnxRuntimeSession, cuda_problem, open_graph, run_options
from tfbatch.runtimes.top import Top
from tfbatch.session import GPU_CALLERS, Device, OutOfMemory
from tfbatch.steps import read_lots

RUN_BOUND = """
import tfbatch.runtimes.device
from tfbatch.runtimes.bound_session import BoundSession
tfbatch.runtimes.device.OnnxRuntimeSession = BoundSession
from tfbatch.cli import main
main()
"""
SETTINGS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.2, 0.3]}


def texts(rows: int, length: int) -> Feeds:
    ids = np.arange(rows * length, dtype=np.int64).reshape(rows, length) % 20
    mask = np.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def pictures(count: int, side: int) -> Pictures:
    pixels = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Pictures(pixels=list(pixels), levels=normalised_levels(SETTINGS))


def test_bound_inputs_give_the_same_numbers_whatever_was_bound_before(text_bundle: Path) -> None:
    device = find_device("cpu")
    plain, bound = (kind(text_bundle / "model.onnx", device, Stop()) for kind in (OnnxRuntimeSession, BoundSession))
    for rows, length in [(3, 10), (8, 20), (1, 4), (7, 12), (8, 20)]:
        feeds = texts(rows, length)
        np.testing.assert_array_equal(bound.run(feeds), plain.run(feeds))


def test_a_byte_is_to_the_model_what_it_is_on_the_processor(image_bundle: Path) -> None:
    device = find_device("cpu")
    side = json.loads((image_bundle / "config.json").read_text())["image_size"]
    plain, bound = (kind(image_bundle / "model.onnx", device, Stop()) for kind in (OnnxRuntimeSession, BoundSession))
    for count in (1, 5, 2):
        feeds = {"pixel_values": pictures(count, side)}
        np.testing.assert_array_equal(bound.run(feeds), plain.run(feeds))
    wide = Pictures(pixels=[pictures(1, 8).pixels[0][:, :6]], levels=normalised_levels(SETTINGS))
    found = look_up(wide, device).numpy()
    np.testing.assert_array_equal(found, np.asarray(wide))
    assert (found.shape, found.dtype) == ((1, 3, 8, 6), np.float32)
    with pytest.raises(ValueError, match="a copy"):
        np.asarray(wide, copy=False)


def look_up(pictures: Pictures, device: Device) -> Any:
    """Pictures as the model takes them, on a device."""
    table = open_graph(level_table(pictures.levels), device)
    binding = Binding(table, "made", device.runtime, 0, run_options(Stop()))
    binding.take("pixels", np.stack(pictures.pixels))
    return binding.compute()


def test_the_best_logits_are_those_that_all_of_them_would_give(text_bundle: Path) -> None:
    random = np.random.default_rng(0)
    logits = np.stack([random.permutation(500) for _ in range(7)]).astype(np.float32) / 100
    top = Top(4)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    for row, chances, kept in zip(logits, odds / odds.sum(axis=1, keepdims=True), top.of(logits, {}), strict=True):
        places, found = top.read(kept)
        assert places.tolist() == np.argsort(-row)[:4].tolist()
        np.testing.assert_allclose(found, chances[places], rtol=1e-5)
    check_the_best_of_a_vocabulary(find_device("cpu"))
    device, graph = find_device("cpu"), text_bundle / "model.onnx"
    for count in (1, 3):
        bound = BoundSession(graph, device, Stop(), reduction=Top(count)).run(texts(6, 9))
        np.testing.assert_allclose(bound, open_session(graph, device, reduction=Top(count)).run(texts(6, 9)), rtol=1e-6)


def check_the_best_of_a_vocabulary(device: Device) -> None:
    """XLM-RoBERTa's, by the graph on a device and in double precision."""
    logits = np.random.default_rng(0).normal(0, 2, (3, 250_002)).astype(np.float32)
    binding = Binding(open_graph(best_logits(5), device), "made", device.runtime, 0, run_options(Stop()))
    binding.take("outputs", logits)
    binding.compute()
    exact = logits.astype(np.float64)
    chances = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    for expected, found, row in zip(chances, Top(5).of(logits, {}), binding.fetch(), strict=True):
        for places, scores in (Top(5).read(found), Top(5).read(row)):
            assert places.tolist() == np.argsort(-expected)[:5].tolist()
            np.testing.assert_allclose(scores, expected[places], rtol=1e-5)


def check_embeddings(device: Device) -> None:
    """States of tokens become the embeddings on a device that they become here, those of no length too."""
    random = np.random.default_rng(0)
    states = random.normal(size=(5, 7, 12)).astype(np.float32)
    states[4] = 0
    mask = (np.arange(7) < np.array([7, 1, 4, 6, 3])[:, None]).astype(np.int64)
    for mode, normalised in itertools.product(("mean", "cls"), (True, False)):
        pooling = Pooling(mode=mode, normalised=normalised)
        binding = Binding(open_graph(pooling.graph(), device), "made", device.runtime, 0, run_options(Stop()))
        binding.take("outputs", states)
        for name in pooling.takes:
            binding.take(name, mask)
        binding.compute()
        found = binding.fetch()
        np.testing.assert_allclose(found, pooling.of(states, {"attention_mask": mask}), rtol=1e-5, atol=1e-6)
        row = states[2, :4].mean(axis=0) if mode == "mean" else states[2, 0]
        np.testing.assert_allclose(found[2], row / np.linalg.norm(row) if normalised else row, rtol=1e-5, atol=1e-6)


def test_states_become_one_embedding_where_they_are(tmp_path: Path) -> None:
    """By the graph alone, then behind a model's own, here one that gives each token's id as a state of one number."""
    check_embeddings(find_device("cpu"))
    ids = describe("input_ids", "int64", ["B", "L"])
    mask = describe("attention_mask", "int64", ["B", "L"])
    nodes = [
        node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        node("Unsqueeze", ["kept", "last"], ["column"]),
        node("Cast", ["column"], ["states"], to=FLOAT),
    ]
    made = describe("states", "float32", ["B", "L", 1])
    (tmp_path / "model.onnx").write_bytes(
        model("ids", nodes, [ids, mask], made, [tensor("last", np.array([2], np.int64))])
    )
    feeds = {name: texts(4, 10)[name] for name in ("input_ids", "attention_mask")}
    device, pooling = find_device("cpu"), Pooling()
    bound = BoundSession(tmp_path / "model.onnx", device, Stop(), reduction=pooling).run(feeds)
    plain = open_session(tmp_path / "model.onnx", device, reduction=pooling).run(feeds)
    assert bound.shape == (4, 1)
    np.testing.assert_allclose(bound, plain, rtol=1e-6)


def test_batches_are_computed_beside_one_another_a_few_of_a_shape(text_bundle: Path) -> None:
    session = BoundSession(text_bundle / "model.onnx", find_device("cpu"), Stop())
    session._session = watched = Watched(session._session)
    with ThreadPoolExecutor(GPU_CALLERS) as pool:
        list(pool.map(session.run, [texts(4, 10)] * 20))
    assert 1 < watched.most_computing <= BESIDE
    assert watched.most_bound == GPU_CALLERS


class Watched:
    """onnxruntime's session, and how many threads were at once within what it does."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._computing = self._bound = 0
        self.most_computing = self.most_bound = 0

    def io_binding(self) -> Any:
        self._bound += 1
        self.most_bound = max(self.most_bound, self._bound)
        return self._session.io_binding()

    def run_with_iobinding(self, *words: Any) -> None:
        self._computing += 1
        self.most_computing = max(self.most_computing, self._computing)
        time.sleep(0.01)  # long enough for the other thread to come along
        self._session.run_with_iobinding(*words)
        self._computing -= 1
        self._bound -= 1


def test_a_batch_that_does_not_fit_beside_another_is_tried_alone(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = BoundSession(text_bundle / "model.onnx", find_device("cpu"), Stop())
    beside, together, tries = Barrier(2), [], []

    def crowded(feeds: Feeds, place: object) -> str:
        tries.append(place)
        if len(tries) <= 2:
            beside.wait(10)
            raise OutOfMemory
        together.append(place)
        time.sleep(0.05)
        assert len(together) == 1, "nothing may lie beside what did not fit"
        together.remove(place)
        return "done"

    monkeypatch.setattr(session, "_run", crowded)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(session.run, [texts(1, 2)] * 2)) == ["done", "done"]
    assert len(tries) == 4


def test_a_stop_ends_a_bound_batch(text_bundle: Path) -> None:
    stop = Stop()
    session = BoundSession(text_bundle / "model.onnx", find_device("cpu"), stop)
    session.run(texts(2, 5))
    stop.ask(Interrupted(15))
    with pytest.raises(Interrupted):
        session.run(texts(2, 5))


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_job_writes_the_same_rows(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bundle, rows = request.getfixturevalue(f"{kind}_bundle"), tmp_path / "rows.parquet"
    if kind == "text":
        write_reviews(rows, 500)
    else:
        picture = request.getfixturevalue("picture")
        pq.write_table(pa.table({"image": [picture(size=(20 + row, 30)) for row in range(90)]}), rows)
    for name, program in {"plain": "from tfbatch.cli import main; main()", "bound": RUN_BOUND}.items():
        words = ["run", rows, "-m", bundle, "-o", tmp_path / name, "--device", "cpu", "--threads", "2"]
        command = [sys.executable, "-c", program, *map(str, words)]
        subprocess.run(command, env=tfbatch_env(), check=True, capture_output=True)
    assert read_output(tmp_path / "bound").equals(read_output(tmp_path / "plain"))


def test_where_no_driver_is_nothing_is_pinned() -> None:
    if cuda_problem(0) is None:
        pytest.skip("there is a GPU here")
    assert allocate_pinned(1 << 20, 0) is None


@pytest.mark.gpu
def test_memory_is_pinned_and_pictures_are_looked_up_on_the_gpu(image_bundle: Path) -> None:
    if problem := cuda_problem(0):
        pytest.skip(problem)
    assert allocate_pinned(1 << 20, 0) is not None
    side = json.loads((image_bundle / "config.json").read_text())["image_size"]
    feeds = {"pixel_values": pictures(9, side)}
    session = open_session(image_bundle / "model.onnx", find_device("cuda"))
    assert isinstance(session, BoundSession)
    found = look_up(pictures(9, side), find_device("cuda"))
    assert found.device_name().lower() == "cuda"
    np.testing.assert_array_equal(found.numpy(), np.asarray(pictures(9, side)))
    check_the_best_of_a_vocabulary(find_device("cuda"))
    check_embeddings(find_device("cuda"))
    on_cpu = open_session(image_bundle / "model.onnx", find_device("cpu")).run(feeds)
    np.testing.assert_allclose(session.run(feeds), on_cpu, atol=1e-4)


def test_little_of_what_a_gpu_computes_is_padding(text_bundle: Path, tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 40_000)
    texts = [f"{row} {'good ' * length}" for row, length in enumerate(lengths)]  # no two alike
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    on_processor = make_job(RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=text_bundle, device="cpu"))
    job = replace(on_processor, devices=[Device(runtime="cuda")])
    computed = real = 0
    for window in read_lots(job, [job.plan.parts]):
        work = job.task.prepare(window)
        batches = cut(work.lengths, work.groups, job.device.batch_tokens, job.device.length_multiple)
        computed += sum(batch.tokens for batch in batches)
        real += int(work.lengths.sum())
    assert real == lengths.sum() + 3 * len(lengths)
    assert computed < 1.35 * real
