"""A real S3 server on this machine, and buckets in it."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server, socket
from threading import Thread
from typing import Any

import obstore
from conftest import tfbatch_env
from obstore.store import S3Store

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class S3:
    """A bucket of a server at `url`; `env` is how tfbatch is told of it."""

    url: str
    bucket: str

    @property
    def env(self) -> dict[str, str]:
        return KEYS | {"AWS_ENDPOINT_URL": self.url}

    @property
    def store(self) -> Any:
        """The bucket for the test itself."""
        return S3Store(
            self.bucket, access_key_id="key", secret_access_key="secret", region="us-east-1", endpoint=self.url,
            client_options={"allow_http": True},
        )  # fmt: skip

    def put(self, name: str, content: bytes | Path) -> None:
        obstore.put(self.store, name, content)

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self.store, name).bytes())

    def names(self, folder: str = "") -> list[str]:
        found = [meta["path"] for batch in obstore.list(self.store, prefix=folder or None) for meta in batch]
        return sorted(found)

    def parts(self, folder: str) -> dict[str, bytes]:
        """The content of each part of an output by its name."""
        names = [name for name in self.names(folder) if name.endswith(".parquet")]
        return {name.rpartition("/")[2]: self.get(name) for name in names}


@contextmanager
def serve() -> Iterator[str]:
    """A server until the end of the block; gives its address."""
    with create_server(("127.0.0.1", 0)) as socket:
        port = socket.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url)
        yield url
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    """Until a server answers, whatever it says."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)


def make_bucket(url: str, name: str) -> S3:
    request = urllib.request.Request(f"{url}/{name}", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    return S3(url, name)


@dataclass(frozen=True)
class SilentStore:
    """A server that takes connections and never answers; `env` is how tfbatch is told of it."""

    listener: socket

    @property
    def env(self) -> dict[str, str]:
        host, port = self.listener.getsockname()
        return KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}

    @contextmanager
    def asked_by(self, *words: object) -> Iterator["subprocess.Popen[str]"]:
        """A run that waits for an answer."""
        with subprocess.Popen(
            [sys.executable, "-m", "tfbatch.cli", "run", *map(str, words)], env=tfbatch_env(self.env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                connection, _ = self.listener.accept()
                with connection:
                    assert connection.recv(1)
                    yield process
            finally:
                process.kill()


@contextmanager
def never_answer() -> Iterator[SilentStore]:
    with create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield SilentStore(listener)


@contextmanager
def slow_store(bytes_a_second: int) -> Iterator[str]:
    """The address of a store that takes what it is given no faster."""

    class Slow(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            left = int(self.headers["Content-Length"])
            while left:
                left -= len(self.rfile.read(min(left, bytes_a_second // 10)))
                time.sleep(0.1)
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
