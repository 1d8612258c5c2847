"""Parts of a long text whose tokens are those that they are in all of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfbatch.text.word_ends import find_run, find_word_end

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Rust

PIECE = 1 << 16  # characters that are tokenized at once of a text that is wanted whole
LONG = 1 << 14  # characters of a text from which on runs are shortened


class Excerpts:
    """What texts may be given to a tokenizer as; all of a text where nothing is known of that tokenizer."""

    def __init__(self, tokenizer: "Rust") -> None:
        self._word_end = find_word_end(tokenizer)
        self._run = find_run(tokenizer)

    def prefix(self, text: str, characters: int) -> str:
        """The text up to the first end of a word at or after so many characters."""
        if self._word_end is None or len(text) <= 2 * characters:
            return text
        end = self._word_end.search(text, characters)
        return text[: end.start()] if end else text

    def pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """A text in pieces that can be tokenized one by one, each with where it begins."""
        start = 0
        while start < len(text):
            end = self._word_end.search(text, start + PIECE) if self._word_end and len(text) - start > PIECE else None
            stop = end.start() if end else len(text)
            yield start, text[start:stop]
            start = stop

    def shorten(self, text: str) -> str:
        """The text without what `find_run` proves to add no token."""
        return text if self._run is None or len(text) <= LONG else self._run.sub(r"\1\2", text)
