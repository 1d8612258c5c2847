"""An output in an object store: an object is put with one request, whole or not at all.

A part is put only where there is none of its name; what is there already is taken for it when it
has the same bytes. Nothing is written to an object piece by piece: a stream that ends early, by an
error of ours, would leave a short object under the final name.
"""

import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from typing import Any, Literal

from tfbatch.errors import BadConfiguration, OutputRefused, TryAgain
from tfbatch.host.hashes import sha256
from tfbatch.outputs.spools import make_spool, new_spool, remove_left
from tfbatch.outputs.storage import STATE
from tfbatch.stages import overlap

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

    from tfbatch.outputs.lease import Lease
    from tfbatch.outputs.object_store import brief, open_store
except ImportError as error:
    raise BadConfiguration("to write to an object store: pip install 'tfbatch[cloud]'") from error

AT_ONCE = 8  # requests under way
A_REQUEST = 1000  # names that are deleted with one
SECONDS = 30  # that a request may take, or longer by its bytes
SLOWEST = 128 << 10  # of which so many go in a second at least
TRIES = 4  # of a put whose connection broke; the store's own "busy" is tried again by obstore


class Bucket:
    """Storage below an address (`s3://bucket/folder`), under a lease on an object in it."""

    def __init__(self, address: str, beat: Callable[[], None] = lambda: None) -> None:
        self.name = address
        self.beat = beat
        self.spool = new_spool(address)
        self._store = open_store(address, SECONDS)
        self._stores = {0: self._store}  # by how often their requests' time was doubled
        self.descriptors: list[int] = []  # a lease runs out by itself
        self._spool_lock: int | None = None
        self._ask: Callable[[], None] | None = None  # whoever holds it for this process
        self._lease = Lease(self._store, f"{STATE}/lock", address)

    def check(self) -> None:
        try:
            names = self.files()
            if next(names, None) is not None and next(self.files(STATE), None) is None:
                raise OutputRefused(f"output {self.name} holds what is not tfbatch's; choose another with -o")
        except OSError as error:
            raise OutputRefused(f"output {self.name} cannot be used: {error.strerror}") from error

    def hold(self) -> None:
        with self._failing_as_os():
            self._lease.take()
        remove_left(self.name)
        self._spool_lock = make_spool(self.spool)

    def release(self) -> None:
        if self._spool_lock is not None:
            shutil.rmtree(self.spool, ignore_errors=True)
            os.close(self._spool_lock)
            self._spool_lock = None
        self._lease.release()

    def join(self, spool: Path, ask: Callable[[], None]) -> None:
        self.spool, self._ask = spool, ask
        self.spool.mkdir()

    def ensure_held(self) -> None:
        if self._ask is not None:
            self._ask()
        elif self._spool_lock is not None:
            self._lease.ensure()

    def read(self, name: str) -> bytes:
        with self._failing_as_os():
            return bytes(obstore.get(self._store, name).bytes())

    def write(self, name: str, text: str) -> None:
        with self._failing_as_os():
            self._put(name, text.encode(), "overwrite")

    def publish(self, spooled: Path, name: str) -> None:
        with self._failing_as_os(), mapped(spooled) as content:
            try:
                self._put(name, content, "create")
            except AlreadyExistsError:
                if self.sha256(name) != sha256(spooled):
                    self._replace(name, content)
        spooled.unlink()

    def publish_folder(self, spooled: Path, name: str) -> None:
        ours = {f"{name}/{path.name}": path for path in spooled.iterdir()}
        with self._failing_as_os():
            self._delete([found for found in self.files(name) if found not in ours])

        def put(picture: str) -> None:
            with self._failing_as_os():
                self._put(picture, ours[picture].read_bytes(), "overwrite")

        for _ in overlap(put, ours, workers=AT_ONCE, ahead=2 * AT_ONCE):
            self.beat()
        shutil.rmtree(spooled)

    def size(self, name: str) -> int:
        with self._failing_as_os():
            return int(obstore.head(self._store, name)["size"])

    def sha256(self, name: str) -> str:
        found = hashlib.sha256()
        with self._failing_as_os():
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=1 << 20):
                found.update(chunk)
                self.beat()
        return found.hexdigest()

    def files(self, folder: str = "") -> Iterator[str]:
        with self._failing_as_os():
            for found in obstore.list(self._store, prefix=folder or None):
                self.beat()
                yield from (str(meta["path"]) for meta in found)

    def remove(self, *names: str) -> None:
        gone = set(names)
        below = [found for found in self.files(commonpath(names)) if not gone.isdisjoint(folders_of(found))]
        with self._failing_as_os():
            self._delete([*names, *below])

    def _delete(self, names: list[str]) -> None:
        """Delete what is there of these, many with one request."""
        for some in (names[first : first + A_REQUEST] for first in range(0, len(names), A_REQUEST)):
            self.ensure_held()
            try:
                obstore.delete(self._store, some)
            except (BaseError, FileNotFoundError):  # some stores take no lists, or stop at what is not there
                for name in some:
                    self.ensure_held()
                    with suppress(NotFoundError, FileNotFoundError):
                        obstore.delete(self._store, name)
                    self.beat()
            self.beat()

    def _put(self, name: str, content: Any, mode: Literal["create", "overwrite"]) -> None:
        """One request, again where its connection broke: then it may have been heard all the same. What is large
        has more time."""
        store = self._store_for(len(content))
        for left in reversed(range(TRIES)):
            self.ensure_held()  # for the last one may have waited for longer than a lease lasts
            try:
                obstore.put(store, name, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, NotFoundError, PermissionError):
                raise
            except BaseError:
                if not left:
                    raise
            else:
                return

    def _store_for(self, size: int) -> Any:
        """The store with time for a request of so many bytes, doubled as often as need be: so few are opened."""
        doublings = (size // (SECONDS * SLOWEST)).bit_length()
        if doublings not in self._stores:
            self._stores[doublings] = open_store(self.name, SECONDS << doublings)
        return self._stores[doublings]

    def _replace(self, name: str, content: Any) -> None:
        """Put a part where another run of this job, with a processor that rounds differently, has left its own."""
        self.ensure_held()  # to hash what is there may have taken longer than a lease lasts
        obstore.delete(self._store, name)
        try:
            self._put(name, content, "create")
        except AlreadyExistsError:
            raise TryAgain(f"{name} in output {self.name} is being written by another process too") from None

    @contextmanager
    def _failing_as_os(self) -> Iterator[None]:
        """The store's errors as those of a disk."""
        try:
            yield
        except AlreadyExistsError:
            raise
        except BaseError as error:
            raise OSError(5, f"{type(error).__name__.removesuffix('Error')}: {brief(error)}", self.name) from error


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """A file's content without reading it into memory; not closed, since a request that was answered
    early may not have let go of it yet."""
    with path.open("rb") as file:
        yield mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def folders_of(name: str) -> set[str]:
    """The folders that a content lies in."""
    return {str(folder) for folder in PurePosixPath(name).parents}
