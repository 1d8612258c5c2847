"""What goes between this process and its decoders arrives whole, or not at all."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from socket import socket, socketpair

import numpy as np
import pytest
from tfbatch.pictures.decoder_process import Decoder
from tfbatch.pictures.exchange import LENGTH, fill, hear, take, tell
from tfbatch.pictures.views import View

SAID = {"sizes": [3, 4]}
WORDS = json.dumps(SAID).encode()


@pytest.fixture
def pair() -> Iterator[tuple[socket, socket]]:
    ours, theirs = socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("contents", [[], [bytes(10)], [b"one", b"and", b"more"], [bytes(3_000_000)] * 2])
def test_what_is_told_is_heard(contents: list[bytes], pair: tuple[socket, socket]) -> None:
    ours, theirs = pair
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(tell, theirs, SAID, *map(memoryview, contents))
        assert hear(ours, 100) == SAID
        assert take(ours, sum(map(len, contents))) == b"".join(contents)
        told.result()


def test_what_comes_in_pieces_is_put_together(pair: tuple[socket, socket]) -> None:
    ours, theirs = pair
    sent = LENGTH.pack(len(WORDS)) + WORDS + bytes(range(200))

    def send() -> None:
        for byte in sent:
            theirs.sendall(bytes([byte]))
            time.sleep(0.0002)

    place = np.empty(200, np.uint8)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(send)
        assert hear(ours, 100) == SAID
        fill(ours, place.data)
    assert place.tolist() == list(range(200))


@pytest.mark.parametrize("sent", [b"", b"\x05", LENGTH.pack(len(WORDS)) + WORDS[:5]])
def test_an_end_in_the_middle_is_no_message(sent: bytes, pair: tuple[socket, socket]) -> None:
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(EOFError):
        hear(ours, 100)


def test_no_more_is_heard_than_was_allowed(pair: tuple[socket, socket]) -> None:
    ours, theirs = pair
    tell(theirs, "a" * 99)
    with pytest.raises(OSError, match="101 bytes of JSON"):
        hear(ours, 100)


GREY = {"shape": [2, 2], "type": "uint8"}


@pytest.mark.parametrize(
    "nonsense",
    [
        b"no JSON", b"7", b"[]", b"[[]]", b"[7]", b"[{}]", b'[{"size": [2]}]', b"[" * 30_000,
        json.dumps([GREY, GREY]).encode(),
        *(json.dumps([GREY | {"shape": shape}]).encode() for shape in ([-1, 3], [1 << 40], [1 << 20, 1 << 20], "ab")),
        *(json.dumps([GREY | {"type": kind}]).encode() for kind in ("no type", "object", None, 7)),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_as_if_the_decoder_had_ended(nonsense: bytes, pair: tuple[socket, socket]) -> None:
    ours, theirs = pair
    decoder = object.__new__(Decoder)
    decoder._socket = ours

    def answer() -> None:
        take(theirs, sum(hear(theirs, 1000)["sizes"]))
        theirs.sendall(LENGTH.pack(len(nonsense)) + nonsense + bytes(64))
        theirs.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(answer)
        with pytest.raises((OSError, EOFError)):
            decoder.ask([memoryview(b"a picture")], View())
