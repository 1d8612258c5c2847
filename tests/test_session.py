"""Out of memory, made for real: a session whose arena may not grow."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock

import numpy as np
import onnxruntime
import pytest
from conftest import run_tfbatch
from tfbatch.batches import Batch, Feeds, Indices, Window, Work, one_result_each
from tfbatch.batching.caps import Caps
from tfbatch.batching.cutting import cut
from tfbatch.bundles.tiny_graph import one_operator
from tfbatch.errors import BadConfiguration, DeviceUnavailable, UsageError
from tfbatch.host.machine import cgroup_quota
from tfbatch.host.stop import Stop
from tfbatch.plan import Part
from tfbatch.results import Floats
from tfbatch.runtimes.bound_session import BoundSession
from tfbatch.runtimes.device import find_device, open_session
from tfbatch.runtimes.onnxruntime_session import OnnxRuntimeSession, cuda_problem, told_apart
from tfbatch.scoring import Scoring
from tfbatch.session import Device, OutOfMemory, Session

CPU = Device(runtime="cpu")
WINDOW = Window(part=Part(file=0, first=0, stop=2000, folder=Path(), identity=""), first=0, rows=None)


@pytest.fixture(params=[OnnxRuntimeSession, BoundSession])
def cramped(request: pytest.FixtureRequest, text_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of the tiny model with 2 MiB of working memory."""
    plain = onnxruntime.InferenceSession

    def limited(path: str, options: onnxruntime.SessionOptions, **_: object) -> onnxruntime.InferenceSession:
        arena = onnxruntime.OrtArenaCfg({"max_mem": 2 << 20, "arena_extend_strategy": 1})
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(memory, arena)
        options.add_session_config_entry("session.use_env_allocators", "1")
        return plain(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", limited)
    return request.param(text_bundle / "model.onnx", find_device("cpu"), Stop())


def work_of(rows: int, length: int) -> Work:
    def collate(inputs: Indices, length: int) -> Feeds:
        ids = np.full((len(inputs), length), 6, np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    return one_result_each(np.full(rows, length), np.arange(rows), {}, collate)


class Counting:
    """A session that notes how many rows it is given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: list[int] = []

    def run(self, feeds: Feeds) -> Floats:
        self.rows.append(len(feeds["input_ids"]))
        return self._session.run(feeds)


def test_a_batch_that_does_not_fit_is_run_in_pieces_and_the_next_ones_too(cramped: Session, text_bundle: Path) -> None:
    whole = Batch(inputs=np.arange(2000), length=20)
    scoring, caps, session = Scoring(WINDOW, work_of(2000, 20)), Caps(CPU), Counting(cramped)
    scoring.compute(session, whole, caps)
    assert scoring.reasons == {}
    most = caps.of(20)
    assert session.rows[:2] == [2000, 1000]
    assert 1 < most < 1000
    session.rows.clear()
    Scoring(WINDOW, work_of(2000, 20)).compute(session, whole, caps)
    assert max(session.rows) == most
    assert sum(session.rows) == 2000
    assert (caps.of(40), caps.of(19)) == (most, sys.maxsize)
    roomy = Scoring(WINDOW, work_of(2000, 20))
    alone = Batch(inputs=np.arange(1), length=20)
    roomy.compute(open_session(text_bundle / "model.onnx", find_device("cpu")), alone, Caps(CPU))
    np.testing.assert_allclose(scoring.work.results, np.tile(roomy.work.results[0], (2000, 1)), atol=1e-6)


class Narrow:
    """A session whose memory takes so many numbers of attention: rows x length x length."""

    def __init__(self, session: Session, most: int) -> None:
        self._session = session
        self._most = most

    def run(self, feeds: Feeds) -> Floats:
        rows, length = feeds["input_ids"].shape
        if rows * length**2 > self._most:
            raise OutOfMemory
        return self._session.run(feeds)


class Crowded:
    """A session that has memory for one call at a time; the first waits until another is beside it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock, self._met = Lock(), Event()
        self._inside = 0

    def run(self, feeds: Feeds) -> Floats:
        with self._lock:
            self._inside += 1
            is_beside = self._inside > 1
        if is_beside:
            self._met.set()
        try:
            assert self._met.wait(60)
            if is_beside:
                raise OutOfMemory
            return self._session.run(feeds)
        finally:
            with self._lock:
                self._inside -= 1


def test_a_row_that_does_not_fit_takes_none_with_it(text_bundle: Path) -> None:
    """Pieces are only as long as their own rows: what a long one needs is not held against the short ones."""
    lengths = np.random.default_rng(0).integers(1, 21, 500)
    session = open_session(text_bundle / "model.onnx", find_device("cpu"))
    scoring, gpu = Scoring(WINDOW, replace(work_of(500, 20), lengths=lengths)), Device(runtime="cuda")
    caps = Caps(gpu)
    for batch in cut(lengths, np.zeros_like(lengths), 512, gpu.length_multiple, 20):
        scoring.compute(Narrow(session, 256), batch, caps)
    assert set(scoring.reasons) == set(np.flatnonzero(lengths > 16))
    assert scoring.work.results[int(np.argmin(lengths))] is not None


def test_memory_that_is_short_on_a_processor_is_no_rows_error(text_bundle: Path) -> None:
    scoring, narrow = Scoring(WINDOW, work_of(3, 20)), Narrow(open_session(text_bundle / "model.onnx", CPU), 256)
    with pytest.raises(MemoryError):
        scoring.compute(narrow, Batch(inputs=np.arange(3), length=20), Caps(CPU))
    assert scoring.reasons == {}


def test_a_row_that_does_not_fit_beside_others_is_computed_alone(text_bundle: Path) -> None:
    scoring, caps = Scoring(WINDOW, work_of(6, 20)), Caps(CPU)
    session = Crowded(open_session(text_bundle / "model.onnx", find_device("cpu")))
    with ThreadPoolExecutor(3) as pool:
        rows = [Batch(inputs=np.array([row]), length=20) for row in range(6)]
        list(pool.map(lambda row: scoring.compute(session, row, caps), rows))
    assert scoring.reasons == {}


@pytest.mark.parametrize("cramped", [BoundSession], indirect=True)
def test_batches_that_have_no_room_beside_one_another_are_computed_one_at_a_time(cramped: Session) -> None:
    rows = most_that_fit(cramped)
    work = work_of(rows, 20)
    with ThreadPoolExecutor(2) as pool:
        for outputs in pool.map(lambda _: cramped.run(work.collate(np.arange(rows), 20)), range(30)):
            assert len(outputs) == rows


def most_that_fit(session: Session) -> int:
    """About as many rows of 20 tokens as fit the memory at once."""
    rows = 2000
    while True:
        try:
            session.run(work_of(rows, 20).collate(np.arange(rows), 20))
        except OutOfMemory:
            rows = rows * 9 // 10
        else:
            return rows


def test_a_device_is_cpu_or_cuda_or_refused() -> None:
    assert find_device("cpu").provider == "CPUExecutionProvider"
    for word in ("gpu", "cuda:x", "cuda:-1", "CPU", ""):
        with pytest.raises(UsageError, match="auto, cpu, openvino, cuda, cuda:N or cuda:N,M"):
            find_device(word)


def test_threads_are_left_to_who_calls_a_gpu() -> None:
    gpu = Device(runtime="cuda")
    assert [gpu.tokenizing(threads) for threads in (1, 2, 4, 16)] == [1, 2, 3, 12]
    assert Device(runtime="cpu").tokenizing(16) == 16


def test_auto_is_the_cpu_where_cuda_cannot_be_had() -> None:
    if cuda_problem(0) is None:
        pytest.skip("there is a GPU here")
    assert find_device("auto").name == "cpu"
    with pytest.raises(DeviceUnavailable):
        find_device("cuda")


@pytest.mark.gpu
def test_the_gpu_gives_the_processors_numbers(text_bundle: Path) -> None:
    if problem := cuda_problem(0):
        pytest.skip(problem)
    feeds = work_of(5, 20).collate(np.arange(5), 20)
    graph = text_bundle / "model.onnx"
    on_gpu, on_cpu = (open_session(graph, find_device(device)).run(feeds) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4)


def test_a_graph_that_cannot_be_loaded_is_the_bundles_fault(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(one_operator("Nonsense", {"x": np.zeros(3, np.float32)}))
    with pytest.raises(BadConfiguration, match="cannot load .*model.onnx"):
        open_session(tmp_path / "model.onnx", find_device("cpu"))


@pytest.mark.parametrize(("content", "threads"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_cgroups_quota_bounds_the_threads(content: str, threads: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cgroup_quota(tmp_path) == threads
    assert cgroup_quota(tmp_path / "nothing") is None


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_run_leaves_nothing_in_the_home_folder(device: str, reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--device", device, env=places)
    assert done.code == 0, done.err
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("message", "raised"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaStreamCreateWithFlags(&stream)", OutOfMemory),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&handle)", OutOfMemory),
        ("CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0", OutOfMemory),
        ("BFCArena::AllocateRawInternal Available memory of 1 is smaller than requested bytes of 2", OutOfMemory),
        ("CUDA failure 209: no kernel image is available for execution on the device ; GPU=0", RuntimeError),
        ("CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER ; GPU=0", RuntimeError),
    ],
)
def test_a_lack_of_memory_is_told_from_what_else_a_gpu_reports(message: str, raised: type[Exception]) -> None:
    with pytest.raises(raised), told_apart(Stop()):
        raise RuntimeError(message)
