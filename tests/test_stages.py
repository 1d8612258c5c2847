import threading
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tfbatch import flow
from tfbatch.batches import Feeds, Indices, Window, Work, divide, one_result_each
from tfbatch.batching.room import Room
from tfbatch.clock import Clock, Stage
from tfbatch.config import RunConfig
from tfbatch.host.stop import Stop
from tfbatch.job import Job, make_job
from tfbatch.plan import Part
from tfbatch.probe import Budget
from tfbatch.reporting.tally import Tally
from tfbatch.results import Floats, stacked
from tfbatch.scoring import Scoring
from tfbatch.session import Device, Runtime, Session
from tfbatch.stages import Lanes, after, meanwhile, overlap
from tfbatch.steps import Step, complete, cut_windows, light_windows


def test_results_come_in_order_though_items_overtake() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * 10

    assert list(overlap(work, iter(range(50)), workers=4, ahead=8)) == [item * 10 for item in range(50)]


def test_no_more_than_ahead_items_are_taken_from_the_source() -> None:
    taken = []

    def source() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = overlap(lambda item: item, source(), workers=2, ahead=5)
    for done in range(1, 20):
        next(results)
        assert len(taken) <= done + 4
    results.close()


def nothing_until(given: list[int]) -> Iterator[None]:
    """Items that are none yet, for as long as nothing was given, or five seconds."""
    for _ in range(5_000):
        if given:
            break
        time.sleep(0.001)
        yield None


def test_what_is_done_is_given_while_the_next_item_is_waited_for() -> None:
    """And what is not done is not waited for: the source goes on."""
    may_end = threading.Event()
    given: list[int] = []

    def source() -> Iterator[int | None]:
        yield 1
        yield from [None] * 3
        may_end.set()
        yield from nothing_until(given)
        assert given == [1]

    def work(item: int) -> int:
        assert may_end.wait(30)
        return item

    ready: Iterator[int | None] = overlap(work, source(), workers=1, ahead=5)
    for result in filter(None, ready):
        given.append(result)  # noqa: PERF402 - the source looks at it meanwhile


def test_what_is_done_is_given_through_two_stages() -> None:
    """Whoever is behind another stage waits for no next item either."""
    given: list[int] = []

    def source() -> Iterator[int | None]:
        yield 1
        yield from nothing_until(given)
        assert given == [1]
        yield 2

    first: Iterator[int | None] = overlap(lambda item: item, source(), workers=1, ahead=5)
    second: Iterator[int | None] = overlap(lambda item: item, first, workers=1, ahead=5)
    for result in filter(None, second):
        given.append(result)  # noqa: PERF402 - the source looks at it meanwhile
    assert given == [1, 2]


def test_nothing_is_begun_after_an_error() -> None:
    begun, is_waiting = list[int](), threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            assert is_waiting.wait(30)
            raise ValueError("the second")
        return item

    def source() -> Iterator[int]:
        for item in range(5):
            if item == 4:
                is_waiting.set()
            yield item

    found = list[int]()
    with pytest.raises(ValueError, match="the second"):
        found.extend(overlap(work, source(), workers=1, ahead=5))
    assert (found, begun) == ([0], [0, 1])


def test_an_error_is_raised_at_its_turn_and_every_thread_ends() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def work(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item

    before = threading.active_count()
    results = overlap(work, overlap(int, source(), workers=2, ahead=3), workers=2, ahead=3)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)
    assert closed == [True]
    assert threading.active_count() == before


def test_nothing_is_taken_while_there_is_no_room() -> None:
    room, under_way = Room(30), []

    def source() -> Iterator[int]:
        for item in range(30):
            room.take(10, then=10)
            under_way.append(item)
            yield item

    inner = overlap(int, source(), workers=2, ahead=8, is_full=lambda _: room.is_full)
    results = overlap(int, inner, workers=2, ahead=8, is_full=lambda _: room.is_full)
    for done, item in enumerate(results):
        assert item == done
        assert len(under_way) <= done + 3
        room.release(10)
    assert len(under_way) == 30


def test_a_window_is_divided_by_what_its_rows_weigh() -> None:
    rows = pa.table({"row": range(7)})
    window = Window(part=Part(file=0, first=0, stop=17, folder=PurePath(), identity=""), first=10, rows=rows)
    pieces = list(divide(window, np.array([4, 4, 4, 50, 1, 9, 1]), 10))
    assert [(piece.first, piece.rows.num_rows, piece.weight) for piece in pieces] == [
        (10, 2, 8), (12, 1, 4), (13, 1, 50), (14, 2, 10), (16, 1, 1),
    ]  # fmt: skip
    assert pa.concat_tables([piece.rows for piece in pieces]) == rows
    (empty,) = divide(replace(window, rows=rows.slice(0, 0)), np.zeros(0, np.int64), 10)
    assert empty.rows.num_rows == 0


def works(rows: int) -> Work:
    def collate(_inputs: Indices, _length: int) -> Feeds:
        return {}

    return one_result_each(np.ones(rows, np.int64), np.arange(rows), {}, collate)


def test_a_window_is_complete_after_its_last_batch_and_nothing_is_before() -> None:
    part = Part(file=0, first=0, stop=3, folder=PurePath(), identity="")
    window = Window(part=part, first=0, rows=pa.table({"id": range(3)}))
    scoring = Scoring(window, works(rows=3))

    def steps() -> Generator[Step, None, None]:
        for is_last in (False, False, True):
            yield Step(scoring=scoring, batch=None, is_last=is_last)

    assert list(complete(steps())) == [None, None, scoring]


def test_a_finished_window_has_let_go_of_its_work_whoever_holds_it(text_bundle: Path, tmp_path: Path) -> None:
    """Its results lie in one block, which would be there a window longer."""
    pq.write_table(pa.table({"text": ["a good film", "a bad film", None]}), tmp_path / "in.parquet")
    job = make_job(RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=text_bundle))
    (window,) = light_windows(job, [job.plan.parts], Room(1 << 30))

    def prepared() -> Generator[Scoring, None, None]:
        yield Scoring(window.only(job.kept), job.task.prepare(window))

    def session() -> Session:
        raise AssertionError("nothing is computed here")

    tally = Tally()
    steps = cut_windows(job, prepared(), Budget(job, session, 1, tally, Stop()))
    (scoring,) = {next(steps).scoring}
    scoring.work.receive(np.arange(2), np.array([[1, 2, 3], [3, 2, 1]], np.float32))
    block = weakref.ref(scoring.work.results[0].base)
    assert block() is not None
    finished = scoring.finish(job.task, job.schema, job.kept, keeps_results=False)
    assert finished.table["predicted_label"].null_count == 1
    assert block() is None
    steps.close()


def test_results_are_no_views_of_outputs() -> None:
    """One of a single row would keep its whole batch from the runtime until its window is written."""
    outputs = np.arange(12, dtype=np.float32).reshape(3, 4)
    work = works(rows=3)
    work.receive(np.array([2, 0, 1]), outputs)
    assert [result.tolist() for result in work.results] == outputs[[1, 2, 0]].tolist()
    assert not any(np.shares_memory(result, outputs) for result in work.results)


def test_results_in_one_array_are_stacked_without_a_copy_and_what_is_not_there_is_zeros() -> None:
    """The column of a window's embeddings is where they were put: a copy would be held beside it."""
    work = works(rows=4)
    work.receive(np.array([3, 0, 1]), np.arange(1, 7, dtype=np.float32).reshape(3, 2))
    work.results[1] = None
    array = stacked(work.results, 2)
    assert array.tolist() == [[3, 4], [0, 0], [0, 0], [1, 2]]
    assert [result is None for result in work.results] == [False, True, True, False]
    assert np.shares_memory(array, work.results[0])
    assert stacked(list(work.results), 2).tolist() == array.tolist()
    assert stacked(works(rows=2).results, 3).tolist() == [[0, 0, 0]] * 2
    with pytest.raises(ValueError, match="1 results for 2 inputs"):
        work.receive(np.arange(2), np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="reshape"):
        stacked(work.results, 4)


def test_what_is_done_meanwhile_gives_its_result_or_its_error_where_it_is_asked_for() -> None:
    before, stage = threading.active_count(), Stage()
    with meanwhile(lambda: 7, stage) as seven:
        assert seven() == seven() == 7
    with meanwhile(lambda: 1 // 0) as broken, pytest.raises(ZeroDivisionError):
        broken()
    with pytest.raises(ValueError, match="within"), meanwhile(lambda: 1 // 0):
        raise ValueError("within")
    assert threading.active_count() == before
    assert stage.busy > 0


def test_a_wait_for_what_is_done_meanwhile_is_counted() -> None:
    stage, go_on = Stage(), threading.Event()
    with meanwhile(go_on.wait, stage) as waited:
        threading.Timer(0.02, go_on.set).start()
        assert waited()
    assert stage.waited > 0
    assert stage.busy > 0


def test_the_first_item_is_there_before_what_it_needs_is_waited_for() -> None:
    said: list[str] = []

    def source() -> Generator[int, None, None]:
        try:
            for item in range(9):
                said.append(f"made {item}")
                yield item
        finally:
            said.append("closed")

    items = after(lambda: said.append("ready"), source())
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert said == ["made 0", "ready", "made 1", "ready", "closed"]


def test_a_stage_counts_its_work_and_who_waited_for_it() -> None:
    stage = Stage()

    def work(item: int) -> int:
        time.sleep(0.01)
        return item

    assert list(overlap(work, iter(range(10)), workers=2, ahead=4, stage=stage)) == list(range(10))
    assert stage.workers == 2
    assert stage.busy >= 0.1
    assert 0.01 <= stage.waited <= stage.busy


def test_a_timed_source_gives_its_items_and_is_closed() -> None:
    closed = []

    def source() -> Generator[int, None, None]:
        try:
            for item in range(100):
                time.sleep(0.001)
                yield item
        finally:
            closed.append(True)

    stage = Stage()
    items = stage.timed(source())
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert list(Stage().timed(item for item in (1, None, 2))) == [1, None, 2]
    items.close()
    assert closed == [True]
    assert stage.busy == stage.waited >= 0.005


def test_what_is_busiest_for_its_workers_is_the_bottleneck() -> None:
    clock = Clock(prepare=Stage(workers=4, busy=8), compute=Stage(workers=1, busy=6))
    assert clock.shares(10) == {"load": 0, "read": 0, "prepare": 0.2, "compute": 0.6, "finish": 0, "write": 0}


class Seen:
    """Work in `Lanes` that notes which threads do it, and goes on only when told to."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.threads: list[str] = []
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def do(self, kind: str) -> None:
        self._lanes.do(kind, self._work)

    def _work(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.begun.release()
        assert self.may_end.acquire(timeout=10)


def test_a_kind_of_work_has_one_thread_and_more_while_it_is_under_way() -> None:
    often = Seen(Lanes(4, 2))
    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(often.do, "often") for _ in range(2)]
        assert often.begun.acquire(timeout=10)
        assert not often.begun.acquire(timeout=0.05)  # it is set up by one alone
        often.may_end.release(2)
        for each in first:
            each.result()
        assert len(set(often.threads)) == 1
        usual = often.threads[0]
        assert often.begun.acquire(timeout=10)
        again = [pool.submit(often.do, "often") for _ in range(4)]
        assert all(often.begun.acquire(timeout=10) for _ in range(2))
        assert not often.begun.acquire(timeout=0.05)
        often.may_end.release(4)
        for each in again:
            each.result()
        assert len(set(often.threads)) == 2
        often.threads.clear()
        for _ in range(10):
            often.may_end.release()
            often.do("often")
        assert set(often.threads) == {usual}


def test_a_kind_of_work_waits_for_its_thread_beside_idle_ones() -> None:
    lanes = Lanes(3, 2)
    kinds = {kind: Seen(lanes) for kind in ("first", "second", "third", "fourth")}
    for kind, seen in kinds.items():
        seen.may_end.release()
        seen.do(kind)
        assert seen.begun.acquire(timeout=10)
    first, fourth = kinds["first"], kinds["fourth"]
    assert fourth.threads == first.threads  # the threads there are, by turns
    assert len({seen.threads[0] for seen in kinds.values()}) == 3
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(fourth.do, "fourth")
        assert fourth.begun.acquire(timeout=10)
        waiting = pool.submit(first.do, "first")
        assert not first.begun.acquire(timeout=0.05)
        for seen, doing in ((fourth, busy), (first, waiting)):
            seen.may_end.release()
            doing.result()
    assert len(set(first.threads)) == 1


def test_an_error_in_a_lane_is_its_callers() -> None:
    lanes = Lanes(1, 1)
    with pytest.raises(ZeroDivisionError):
        lanes.do("wrong", lambda: 1 // 0)
    assert lanes.do("right", lambda: 3) == 3


def all_zeros(job: Job, *_: object) -> Session:
    """A session that has its outputs at once."""

    class AllZeros:
        def run(self, feeds: Feeds) -> Floats:
            return np.zeros((len(feeds["input_ids"]), len(job.bundle.manifest.labels)), np.float32)

    return AllZeros()


def test_a_gpus_windows_are_written_while_more_are_read(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"text": [f"number {row}" for row in range(60)]}), tmp_path / "in.parquet")
    config = RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=text_bundle, rows_per_part=1, device="cpu")
    job = replace(make_job(config), devices=[Device(runtime="cuda")])
    is_writing, was_read, is_beside = threading.Event(), threading.Event(), list[bool]()
    written: list[int] = []

    def watched(*given: Any) -> Iterator[Window]:
        for window in light_windows(*given):
            if is_writing.is_set():
                was_read.set()
            yield window

    def append(part: Part, table: pa.Table, errors: int, **_: Any) -> None:
        if not is_writing.is_set():
            is_writing.set()
            is_beside.append(was_read.wait(30))
        written.append(part.first)

    monkeypatch.setattr(flow, "light_windows", watched)
    done = list(flow.work(job, [job.plan.parts], append, Tally(), Stop(), all_zeros))
    assert is_beside == [True]
    assert written == [finished.window.part.first for finished, _ in done] == list(range(60))


@pytest.mark.parametrize("runtime", ["cpu", "cuda"])
def test_what_fails_as_it_is_written_ends_the_flow(runtime: Runtime, text_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"number {row}" for row in range(20)]}), tmp_path / "in.parquet")
    config = RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=text_bundle, rows_per_part=1, device="cpu")
    job, written = replace(make_job(config), devices=[Device(runtime=runtime)]), list[int]()

    def append(part: Part, table: pa.Table, errors: int, **_: Any) -> None:
        if part.first == 3:
            time.sleep(0.1)  # until the next one waits for its turn
            raise OSError("the disk is full")
        written.append(part.first)

    with pytest.raises(OSError, match="the disk is full"):
        list(flow.work(job, [job.plan.parts], append, Tally(), Stop(), all_zeros))
    assert written == [0, 1, 2]
