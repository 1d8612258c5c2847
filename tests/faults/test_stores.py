"""Object stores that fail in the middle: what is put is there whole or not at all, and what was
interrupted goes on to the same bytes."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pyarrow.parquet as pq
import pytest
from conftest import Finished, run_tfbatch, tfbatch_env, write_reviews
from s3 import S3
from tfbatch.outputs.bucket import Bucket

pytestmark = pytest.mark.faults

ROWS, PART = 1000, 25
KILL_AT = range(1, 37, 3)  # when so many parts are there
WRITERS = 100


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to a server; what `fail` says of the number and name of a part's PUT is done to it."""

    protocol_version = "HTTP/1.1"
    server_url: ClassVar[str]
    fail: ClassVar[Callable[[int], str | None]]
    puts: ClassVar[int]
    opener: ClassVar[Any] = build_opener(HTTPRedirectHandler)

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = None
        if self.command == "PUT" and "/part-" in self.path and "_tfbatch" not in self.path:
            type(self).puts += 1
            fault = type(self).fail(self.puts)
        if fault == "drop in the middle":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if fault == "busy":
            self.reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        status, headers, content = self.forward(body)
        if fault == "answer lost":
            self.close_connection = True
            self.connection.close()
            return
        self.reply(status, headers, content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 -- the names that http.server calls

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        names = {"host", "connection", "content-length", "expect", "accept-encoding"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in names}
        headers.setdefault("Content-Type", "application/octet-stream")  # else the body is taken for a form
        request = Request(self.server_url + self.path, body or None, headers, method=self.command)
        try:
            with self.opener.open(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except HTTPError as answer:
            with answer:
                return answer.code, dict(answer.headers), answer.read()

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def failing(s3: S3) -> Iterator[Callable[[Callable[[int], str | None]], S3]]:
    """Makes the same bucket behind a proxy that fails as it is told."""
    servers = []

    def start(fail: Callable[[int], str | None]) -> S3:
        handler = type("Failing", (Proxy,), {"server_url": s3.url, "fail": staticmethod(fail), "puts": 0})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return S3(f"http://127.0.0.1:{server.server_port}", s3.bucket)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def words(s3: S3, bundle: Path, to: str = "out") -> list[str]:
    address = f"s3://{s3.bucket}"
    return ["run", f"{address}/in.parquet", "-m", str(bundle), "-o", f"{address}/{to}", "--rows-per-part", str(PART)]


def score(s3: S3, bundle: Path, to: str = "out") -> Finished:
    return run_tfbatch(*words(s3, bundle, to), env=s3.env)


@pytest.fixture
def whole(s3: S3, text_bundle: Path, tmp_path: Path) -> dict[str, bytes]:
    """The parts of a run that nothing happened to."""
    s3.put("in.parquet", write_reviews(tmp_path / "in.parquet", ROWS))
    done = score(s3, text_bundle, "whole")
    assert done.code == 0, done.err
    parts = s3.parts("whole")
    assert len(parts) == ROWS // PART
    return parts


def assert_parts_are_whole(s3: S3, whole: dict[str, bytes]) -> None:
    """Whatever is there under a part's name is that part."""
    for name, content in s3.parts("out").items():
        assert pq.read_metadata(io.BytesIO(content)).num_rows == PART
        assert content == whole[name]


def test_a_killed_run_goes_on_to_the_same_objects(s3: S3, whole: dict[str, bytes], text_bundle: Path) -> None:
    command = [sys.executable, "-m", "tfbatch.cli", *words(s3, text_bundle)]
    killed = 0
    for parts in KILL_AT:
        process = subprocess.Popen(
            command, env=tfbatch_env(s3.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(s3.parts("out")) < parts:
            assert_parts_are_whole(s3, whole)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert_parts_are_whole(s3, whole)
    assert killed > len(KILL_AT) // 2
    done = score(s3, text_bundle)
    assert done.code == 0, done.err
    assert s3.parts("out") == whole


@pytest.mark.parametrize("fault", ["busy", "drop in the middle", "answer lost"])
def test_a_store_that_fails_now_and_then_is_asked_again(
    fault: str,
    s3: S3,
    failing: Callable[[Callable[[int], str | None]], S3],
    whole: dict[str, bytes],
    text_bundle: Path,
) -> None:
    proxied = failing(lambda number: fault if number % 2 else None)
    done = score(proxied, text_bundle)
    assert done.code == 0, done.err
    assert s3.parts("out") == whole


def test_a_store_that_fails_for_good_is_exit_74_and_the_next_run_finishes(
    s3: S3, failing: Callable[[Callable[[int], str | None]], S3], whole: dict[str, bytes], text_bundle: Path
) -> None:
    proxied = failing(lambda number: "drop in the middle" if number > 3 else None)
    done = score(proxied, text_bundle)
    assert done.code == 74, done.err
    assert done.result["exit_code"] == 74
    assert done.err.count("tfbatch: ") == 1
    assert "Traceback" not in done.err
    assert 1 <= len(s3.parts("out")) <= 3
    assert_parts_are_whole(s3, whole)
    assert "out/_SUCCESS" not in s3.names("out")
    assert score(s3, text_bundle).code == 0
    assert s3.parts("out") == whole


def test_what_is_there_already_is_taken_for_ours_only_with_our_bytes(
    s3: S3, whole: dict[str, bytes], text_bundle: Path
) -> None:
    """A put that is answered with 412: once by what a crash left before its record, once by other bytes."""
    first, second, *_ = whole
    done = score(s3, text_bundle)
    assert done.code == 0, done.err
    record = f"out/_tfbatch/done/{first}.json"
    assert record in s3.names("out")
    import obstore

    obstore.delete(s3.store, record)
    obstore.delete(s3.store, f"out/_tfbatch/done/{second}.json")
    s3.put(f"out/{second}", b"bytes of another machine")
    done = score(s3, text_bundle)
    assert (done.code, done.result["status"]) == (0, "done"), done.err
    assert s3.parts("out") == whole


def test_of_a_hundred_racing_writers_of_one_part_exactly_one_wins(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    buckets = [Bucket(f"s3://{s3.bucket}/out") for _ in range(WRITERS)]

    def write(number: int) -> int | None:
        from obstore.exceptions import AlreadyExistsError

        with suppress(AlreadyExistsError):
            buckets[number]._put("part-0.parquet", str(number).encode(), "create")
            return number
        return None

    with ThreadPoolExecutor(WRITERS) as pool:
        winners = [number for number in pool.map(write, range(WRITERS)) if number is not None]
    assert len(winners) == 1
    assert s3.get("out/part-0.parquet") == str(winners[0]).encode()


def test_of_two_runs_on_one_address_the_second_is_told_of_the_first(
    s3: S3, whole: dict[str, bytes], text_bundle: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tfbatch.cli", *words(s3, text_bundle)]
    env = s3.env | {"TMPDIR": str(tmp_path)}
    first = subprocess.Popen(command, env=tfbatch_env(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while first.poll() is None and not list(tmp_path.glob("tfbatch-*")):
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it holds the output for as long as this test looks
    second = run_tfbatch(*words(s3, text_bundle), env=env)
    assert (second.code, f"process {first.pid} on " in second.err) == (75, True), second.err
    assert list(tmp_path.glob("tfbatch-*")), "where the first one makes its parts"
    first.send_signal(signal.SIGKILL)
    first.wait()
    third = score(s3, text_bundle)
    assert third.code == 0, third.err
    assert s3.parts("out") == whole


def test_an_object_that_is_replaced_while_it_is_read_fails_the_job(
    s3: S3, whole: dict[str, bytes], text_bundle: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tfbatch.cli", *words(s3, text_bundle)]
    process = subprocess.Popen(
        command, env=tfbatch_env(s3.env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and "out/_tfbatch/run.json" not in s3.names("out/_tfbatch"):
        time.sleep(0.01)
    s3.put("in.parquet", write_reviews(tmp_path / "other.parquet", ROWS, seed=1))
    _, err = process.communicate()
    assert process.returncode == 65, err
    assert_parts_are_whole(s3, whole)
