"""The one place that starts threads."""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event, Lock, Thread
from typing import TypeVar, cast

from tfbatch.clock import Stage

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlap(
    work: Callable[[Item], Result],
    items: Iterable[Item | None],
    *,
    workers: int,
    ahead: int,
    is_full: Callable[[Item], bool] = lambda _: False,
    stage: Stage | None = None,
) -> Generator[Result, None, None]:
    """`map(work, items)` on threads: results in order, at most `ahead` items under way.

    Where `is_full` of the item just begun, all that is under way is yielded before another is taken. An item
    that is None is none yet: what is done by then is yielded, whoever waits for the next item or not, and None
    to whoever is behind. `stage` counts how long that takes.

    An error in `work` is raised at its item's turn with its own traceback, and nothing is begun after it; one in
    `items`, or the caller's closing of the generator, ends the threads. A source that is a generator is closed
    with this one: without that the stages before it would outlive an error behind it.
    """
    pending: deque[Future[tuple[Result, float]]] = deque()
    pool = ThreadPoolExecutor(workers)
    stage = stage or Stage()
    stage.workers = workers

    timed = timed_until_an_error(work)

    def oldest() -> Result:
        started = time.perf_counter()
        result, seconds = pending.popleft().result()
        stage.waited += time.perf_counter() - started
        stage.busy += seconds
        return result

    try:
        for item in items:
            if item is not None:
                pending.append(pool.submit(timed, item))
            while pending and (pending[0].done() if item is None else len(pending) >= ahead or is_full(item)):
                yield oldest()
            if item is None:
                yield cast(Result, None)  # for those alone who give such items
        while pending:
            yield oldest()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):
            items.close()


def in_turn(
    work: Callable[[Item], Result], items: Generator[Item | None, None, None], *, stage: Stage
) -> Generator[Result, None, None]:
    """`map(work, items)` on the thread that pulls; an item that is None is none yet, as for `overlap`."""
    with closing(items):
        for item in items:
            if item is None:
                yield cast(Result, None)
                continue
            with stage.working():
                result = work(item)
            yield result


def timed_until_an_error(work: Callable[[Item], Result]) -> Callable[[Item], tuple[Result, float]]:
    """The same work, with the seconds it takes; none is begun once some has failed."""
    has_failed = Event()

    def timed(item: Item) -> tuple[Result, float]:
        if has_failed.is_set():
            raise CancelledError
        started = time.perf_counter()
        try:
            return work(item), time.perf_counter() - started
        except BaseException:
            has_failed.set()
            raise

    return timed


@contextmanager
def meanwhile(work: Callable[[], Result], stage: Stage | None = None) -> Iterator[Callable[[], Result]]:
    """Do something on a thread while what is within is done; what is given waits for its result.

    An error in `work` is raised there, or not at all where an earlier one ends what is within. The
    thread has ended when this has. `stage` counts the work, and how long the result was waited for.
    """
    stage = stage or Stage()

    def timed() -> Result:
        started = time.perf_counter()
        try:
            return work()
        finally:
            stage.busy += time.perf_counter() - started

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(timed)

        def result() -> Result:
            if future.done():
                return future.result()
            started = time.perf_counter()
            try:
                return future.result()
            finally:
                stage.waited += time.perf_counter() - started

        yield result


def after(ready: Callable[[], object], items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """The same items; `ready` is waited for once the first is there, on the thread that pulls."""
    with closing(items):
        for item in items:
            ready()
            yield item


class Lanes:
    """A few threads, each for some kinds of work: for what every thread sets up for itself, once for each kind.

    A kind has one of them. Once that has done it, so that it is set up, it has up to `beside` while it is under way
    several times: one more each time.
    """

    def __init__(self, count: int, beside: int) -> None:
        self._lanes = [ThreadPoolExecutor(1) for _ in range(count)]
        self._beside = beside
        self._waiting = [0] * count
        self._first: dict[Hashable, int] = {}
        self._done: set[Hashable] = set()
        self._under_way: Counter[Hashable] = Counter()
        self._lock = Lock()

    def do(self, kind: Hashable, work: Callable[[], Result]) -> Result:
        """The result of some work, once a thread for its kind has done it."""
        with self._lock:
            first = self._first.setdefault(kind, len(self._first) % len(self._lanes))
            most = min(self._under_way[kind] + 1, self._beside) if kind in self._done else 1
            numbers = [number % len(self._lanes) for number in range(first, first + most)]
            lane = min(numbers, key=self._waiting.__getitem__)
            self._waiting[lane] += 1
            self._under_way[kind] += 1
        try:
            return self._lanes[lane].submit(work).result()
        finally:
            with self._lock:
                self._waiting[lane] -= 1
                self._under_way[kind] -= 1
                self._done.add(kind)


def every(seconds: float, call: Callable[[], object]) -> Callable[[], None]:
    """Call something again and again, on a thread that does not keep the process alive.

    Returns:
        What ends it.
    """
    over = Event()

    def again() -> None:
        while not over.wait(seconds):
            call()

    start_thread(again)
    return over.set


def start_thread(call: Callable[[], object]) -> None:
    """Call something on a thread that does not keep the process alive."""
    Thread(target=call, daemon=True).start()
