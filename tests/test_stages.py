import threading
import time
from collections.abc import Iterator

import pytest
from tfbatch.stages import overlap


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
