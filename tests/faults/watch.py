"""Somebody who reads an output while it is written."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

import pyarrow.parquet as pq

from faults.jobs import Trial, check_part

SECONDS_BETWEEN_LOOKS = 0.001


class Watch:
    """Looks at an output again and again, and fails at the end if it saw what is not whole."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._seen: set[tuple[Path, int]] = set()
        self._over = Event()
        self._thread = Thread(target=self._look_on)
        self.looks = 0
        self.failure: Exception | None = None

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self.failure is not None and error is None:
            raise AssertionError("a reader met what is not whole") from self.failure

    def _look_on(self) -> None:
        while not self._over.is_set() and self.failure is None:
            try:
                self._look()
            except FileNotFoundError:
                pass  # between its name and its bytes it was taken away
            except Exception as failure:  # noqa: BLE001 -- raised again where the test can see it
                self.failure = failure
            self.looks += 1
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _look(self) -> None:
        for part in self._trial.root.glob("part-*"):
            self._once(part, check_part)
            self._check(part, self._check_pictures)  # again and again: they must not dwindle either
        if self._trial.out.is_file():
            self._once(self._trial.out, lambda joined: pq.read_table(joined))

    def _once(self, path: Path, check: Callable[[Path], object]) -> None:
        """Check what was not seen before."""
        found = (path, path.stat().st_ino)
        if found not in self._seen:
            self._check(path, check)
            self._seen.add(found)

    def _check(self, path: Path, check: Callable[[Path], object]) -> None:
        """Check what is there; what went away meanwhile proves nothing."""
        inode = path.stat().st_ino
        try:
            check(path)
        except Exception:
            if path.stat().st_ino == inode:
                raise

    def _check_pictures(self, part: Path) -> None:
        """A part's pictures are all there as long as it is, but for the moment in which a folder is replaced."""
        folder = part.parent / "_images" / part.stem
        expected = {Path(name).name for name in self._trial.job.whole if f"/{folder.name}/" in name}
        if expected:
            inode = folder.stat().st_ino
            found = {file.name for file in folder.iterdir()}
            assert found == expected or folder.stat().st_ino != inode, folder
