"""An output in an object store: an object is put with one request, whole or not at all.

A part is put only where there is none of its name; what is there already is taken for it when it
has the same bytes. Nothing is written to an object piece by piece: a stream that ends early, by an
error of ours, would leave a short object under the final name.
"""

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from typing import Any, Literal

from tfbatch.errors import BadConfiguration, OutputRefused, TryAgain, first_line
from tfbatch.hashes import sha256
from tfbatch.stages import overlap
from tfbatch.storage import STATE

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
    from obstore.store import from_url

    from tfbatch.lease import Lease
except ImportError as error:
    raise BadConfiguration("to write to an object store: pip install 'tfbatch[cloud]'") from error

AT_ONCE = 8  # requests under way
A_REQUEST = 1000  # names that are deleted with one
TRIES = 4  # of a put whose connection broke; the store's own "busy" is tried again by obstore


class Bucket:
    """Storage below an address (`s3://bucket/folder`), under a lease on an object in it."""

    def __init__(self, address: str, beat: Callable[[], None] = lambda: None) -> None:
        self.name = address
        self.beat = beat
        self.spool = Path(tempfile.gettempdir()) / f"tfbatch-{os.getuid()}-{digest(address)}"
        try:
            self._store = from_url(address, **options(address))
        except (BaseError, ValueError) as error:
            raise OutputRefused(f"output {address} cannot be used: {brief(error)}") from error
        self.descriptors: list[int] = []  # a lease runs out by itself
        self._holds = False
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
        with suppress(FileNotFoundError):
            refuse_foreign(self.spool)
            shutil.rmtree(self.spool)
        self.spool.mkdir(mode=0o700)
        self._holds = True

    def release(self) -> None:
        if self._holds:  # else the spool may be in use: it has the same name for whoever writes to this output
            self._holds = False
            shutil.rmtree(self.spool, ignore_errors=True)
        self._lease.release()

    def join(self, name: str) -> None:
        self.spool = self.spool / name
        self.spool.mkdir()

    def ensure_held(self) -> None:
        if self._holds:
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
            try:
                obstore.delete(self._store, some)
            except (BaseError, FileNotFoundError):  # some stores take no lists, or stop at what is not there
                for name in some:
                    with suppress(NotFoundError, FileNotFoundError):
                        obstore.delete(self._store, name)
            self.beat()

    def _put(self, name: str, content: Any, mode: Literal["create", "overwrite"]) -> None:
        """One request, again where its connection broke: then it may have been heard all the same."""
        for left in reversed(range(TRIES)):
            try:
                obstore.put(self._store, name, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, NotFoundError, PermissionError):
                raise
            except BaseError:
                if not left:
                    raise
            else:
                return

    def _replace(self, name: str, content: Any) -> None:
        """Put a part where another run of this job, with a processor that rounds differently, has left its own."""
        self.ensure_held()
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


def options(address: str) -> dict[str, Any]:
    """How a store is opened: credentials of profiles and single sign-on where boto3 is there to find them;
    everything else from the variables that the vendor's own tools read."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not address.startswith("s3://"):
        return {}
    chosen: dict[str, Any] = {}
    if endpoint:
        chosen = {"endpoint": endpoint, "client_options": {"allow_http": endpoint.startswith("http://")}}
    if "AWS_ACCESS_KEY_ID" not in os.environ and find_spec("boto3"):
        from obstore.auth.boto3 import Boto3CredentialProvider

        chosen["credential_provider"] = Boto3CredentialProvider()
    return chosen


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """A file's content without reading it into memory; not closed, since a request that was answered
    early may not have let go of it yet."""
    with path.open("rb") as file:
        yield mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def refuse_foreign(spool: Path) -> None:
    """Never follow a link, or write into a folder of somebody else's, in a place that all can write to."""
    status = spool.lstat()
    if spool.is_symlink() or not spool.is_dir() or status.st_uid != os.getuid():
        raise OutputRefused(f"{spool}, where parts are made, is not this user's folder; remove it or set TMPDIR")


def folders_of(name: str) -> set[str]:
    """The folders that a content lies in."""
    return {str(folder) for folder in PurePosixPath(name).parents}


def digest(address: str) -> str:
    """An address as sixteen hex digits."""
    return hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


def brief(error: Exception) -> str:
    """The first line of a store's message, without the answer it quotes."""
    return first_line(error).split(": <?xml")[0]
