"""Text cells to token ids: the checkpoint's own tokenizer, without transformers."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tfbatch.batches import Feeds, Indices, Work, one_result_each
from tfbatch.bundle import Bundle
from tfbatch.cells import distinct, keep_valid
from tfbatch.errors import BadConfiguration, UsageError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 8  # a first guess at how long a prefix must be
INVALID_UTF8 = "invalid_utf8: the text is not valid UTF-8"
SPACE = re.compile(r"[ \t\r\n]")  # white space to Python and to BERT's normalizer alike
SPACE_OR_HAN = re.compile(r"[ \t\r\n\u4e00-\u9fff]")  # with Chinese characters, which it makes words of their own
# A blank after what is none to Python, and so none to Unicode (nor to older tables, which had U+180E).
BLANK_AFTER_WORD = re.compile(r"(?<=[^\s\u180e]) ")
LONG = 1 << 14  # characters of a prefix from which on runs are shortened


class TextInput:
    """Turns a text column into token ids cut at `max_length`, special tokens included; `inputs` are
    those of the graph that reads them, where it is not the bundle's main one."""

    def __init__(self, bundle: Bundle, max_length: int | None, inputs: Sequence[str] | None = None) -> None:
        from tokenizers import Tokenizer

        longest = bundle.setting("max_length")
        if max_length is not None and not 3 <= max_length <= longest:
            raise UsageError(f"--max-length {max_length}: this model takes 3 to {longest} tokens")
        self._max_length = max_length or longest
        self._pad = bundle.setting("pad_token_id")
        self._inputs = bundle.manifest.inputs if inputs is None else inputs
        try:
            self._tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
        except Exception as error:  # tokenizers raises Exception itself
            raise BadConfiguration(
                f"bundle {bundle.path}: tokenizer.json cannot be read: {first_line(error)}"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._max_length)
        self._word_end = find_word_end(self._tokenizer)
        self._run = find_run(self._tokenizer)

    def prepare(self, cells: pa.ChunkedArray) -> Work:
        """Tokenize each distinct text of a column; null and invalid UTF-8 are row errors."""
        values, result_of_row, errors = distinct(cells)
        texts, reasons = decode(values)
        texts, result_of_row, errors = keep_valid(texts, reasons, result_of_row, errors)
        encoded = self.encode(texts)
        lengths = np.array([len(ids) for ids in encoded], np.int64)
        tokens = np.concatenate([np.zeros(0, np.int64), *encoded])
        starts = np.cumsum(lengths) - lengths

        def collate(inputs: Indices, length: int) -> Feeds:
            columns = np.arange(length)
            mask = columns < lengths[inputs][:, None]
            ids = np.full(mask.shape, self._pad, np.int64)
            ids[mask] = tokens[(starts[inputs][:, None] + columns)[mask]]
            feeds: Feeds = {
                "input_ids": ids,
                "attention_mask": mask.astype(np.int64),
                "token_type_ids": np.zeros_like(ids),
            }
            return {name: feeds[name] for name in self._inputs}

        return one_result_each(lengths, result_of_row, errors, collate)

    def encode(self, texts: list[str]) -> list[Indices]:
        """Token ids of each text, as if all of it had been tokenized and then cut.

        A long text is tokenized only as far as needed: a prefix that ends between words, several
        times as long each time until it fills `max_length` tokens.
        """
        characters = CHARACTERS_PER_TOKEN * self._max_length
        pieces = [self._prefix(text, characters) for text in texts]
        encoded = self._encode(pieces)
        for index, text in enumerate(texts):
            longer = characters
            while len(pieces[index]) < len(text) and len(encoded[index]) < self._max_length:
                longer *= 4
                pieces[index] = self._prefix(text, longer)
                encoded[index] = self._encode([pieces[index]])[0]
        return encoded

    def _encode(self, pieces: list[str]) -> list[Indices]:
        shortened = [self._shorten(piece) if len(piece) > LONG else piece for piece in pieces]
        return [np.array(found.ids, np.int64) for found in self._tokenizer.encode_batch_fast(shortened)]

    def _prefix(self, text: str, characters: int) -> str:
        """The text up to the first end of a word at or after so many characters."""
        if self._word_end is None or len(text) <= 2 * characters:
            return text
        end = self._word_end.search(text, characters)
        return text[: end.start()] if end else text

    def _shorten(self, text: str) -> str:
        """The text without what `find_run` proves to add no token."""
        return text if self._run is None else self._run.sub(r"\1\2", text)


def find_word_end(tokenizer: "Tokenizer") -> re.Pattern[str] | None:
    """What no token of this tokenizer reaches across from the left, so that the tokens of a prefix
    that ends before it are the whole's first tokens; None where that is not known.

    BERT's word pieces: white space is dropped, and Chinese characters stand alone. GPT-2's byte
    pairs: a token may begin with a blank, but none that began before it holds one, and a blank is
    a boundary of canonical composition (NFC).
    """
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    if any(SPACE_OR_HAN.search(content) for content in added_tokens(tokenizer)):
        return None
    if is_bert(tokenizer):
        return SPACE_OR_HAN if normalizer.handle_chinese_chars else SPACE
    if (
        isinstance(tokenizer.model, models.BPE)
        and not tokenizer.model.dropout
        and isinstance(splitter, pre_tokenizers.ByteLevel)
        and splitter.use_regex
        and (normalizer is None or isinstance(normalizer, normalizers.NFC))
    ):
        return BLANK_AFTER_WORD
    return None


def find_run(tokenizer: "Tokenizer") -> re.Pattern[str] | None:
    """What may be shortened to its groups and leaves the tokens as they are; None where that is not
    known. To BERT's word pieces white space is one or many, and a word of more than so many letters
    is unknown whatever follows them. No added token may lie across what is taken out.
    """
    if not is_bert(tokenizer):
        return None
    most = tokenizer.model.max_input_chars_per_word
    for content in added_tokens(tokenizer):
        if len(content) > most or SPACE.search(content) or re.search(r"^[0-9A-Za-z]|[0-9A-Za-z]$", content):
            return None
    return re.compile(rf"([0-9A-Za-z]{{{most + 1}}})[0-9A-Za-z]+|([ \t\r\n])[ \t\r\n]+")


def is_bert(tokenizer: "Tokenizer") -> bool:
    """Whether a tokenizer makes word pieces as BERT does."""
    from tokenizers import models, normalizers, pre_tokenizers

    return (
        isinstance(tokenizer.model, models.WordPiece)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
    )


def added_tokens(tokenizer: "Tokenizer") -> list[str]:
    """Tokens that are found in a text before it is split."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]


def decode(values: pa.Array) -> tuple[list[str], dict[int, str]]:
    """Python strings, and a reason for each value that is not UTF-8 (Parquet does not promise it)."""
    try:
        return values.to_pylist(), {}
    except UnicodeDecodeError:
        texts, reasons = [], {}
        for index, data in enumerate(values.cast(pa.large_binary()).to_pylist()):
            try:
                texts.append(data.decode())
            except UnicodeDecodeError:
                texts.append("")
                reasons[index] = INVALID_UTF8
        return texts, reasons
