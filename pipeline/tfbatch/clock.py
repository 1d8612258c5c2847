"""How long each stage works and is waited for, and so which of them holds up the others; and rates, for people."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Stage:
    """One stage's seconds: `busy` of all its `workers` together, or of the main thread where there are none,
    `waited` of who needed its next item."""

    workers: int = 0
    busy: float = 0.0
    waited: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count what happens within as this stage's work, for which its caller waits."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.busy += seconds
            self.waited += seconds

    def timed(self, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
        """The same items; what it takes to make them is counted."""
        try:
            while True:
                with self.working():
                    item = next(items)
                yield item
        except StopIteration:
            return
        finally:
            items.close()


@dataclass
class Clock:
    """The stages in a row's order."""

    load: Stage = field(default_factory=Stage)
    read: Stage = field(default_factory=Stage)
    prepare: Stage = field(default_factory=Stage)
    compute: Stage = field(default_factory=Stage)
    finish: Stage = field(default_factory=Stage)
    write: Stage = field(default_factory=Stage)

    def add(self, other: "Clock", workers: int) -> None:
        """Add the time of one of so many processes that worked at once: their work adds up, what they stood still
        for is a mean."""
        for name, stage in vars(self).items():
            own = getattr(other, name)
            stage.workers += max(own.workers, 1)
            stage.busy += own.busy
            stage.waited += own.waited / workers

    def busy(self) -> dict[str, float]:
        """Seconds of work by stage, of all threads together."""
        return {name: round(stage.busy, 3) for name, stage in vars(self).items()}

    def waited(self) -> dict[str, float]:
        """Seconds by stage in which the job stood still for it."""
        return {name: round(stage.waited, 3) for name, stage in vars(self).items()}

    def shares(self, seconds: float) -> dict[str, float]:
        """How much of `seconds` each stage's workers were busy, from 0 to 1."""
        return {name: round(stage.busy / (max(stage.workers, 1) * seconds), 3) for name, stage in vars(self).items()}


def per_second(rate: float) -> str:
    """A rate; pictures may take seconds each."""
    return f"{rate:,.1f}" if rate < 10 else f"{rate:,.0f}"
