"""Where a text may end, and what of it may be left out, so that the tokens before stay as they are.

What is said of a kind of tokenizer here is proved of it: what is not known is None.
"""

import re
from typing import TYPE_CHECKING

from tfbatch.text.metaspace import BLANK_BETWEEN_LETTERS, ends_words_at_blanks

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Rust

SPACE = re.compile(r"[ \t\r\n]")  # white space to Python and to BERT's normalizer alike
SPACE_OR_HAN = re.compile(r"[ \t\r\n\u4e00-\u9fff]")  # with Chinese characters, which it makes words of their own
# A blank after what is none to Python, and so none to Unicode (nor to older tables, which had U+180E).
BLANK_AFTER_WORD = re.compile(r"(?<=[^\s\u180e]) ")
BLANK_BETWEEN_WORDS = re.compile(r"(?<=[^\s\u180e]) (?=[^\s\u180e])")  # where tokens may be runs of blanks


def find_word_end(tokenizer: "Rust") -> re.Pattern[str] | None:
    """What no token of this tokenizer reaches across from the left, so that the tokens of a prefix
    that ends before it are the whole's first tokens; None where that is not known.

    BERT's word pieces: white space is dropped, and Chinese characters stand alone. GPT-2's byte
    pairs: a token may begin with a blank, but none that began before it holds one, and a blank is
    a boundary of canonical composition (NFC). Unigrams behind Metaspace: see `metaspace`. An added
    token may hold no blank, or be one of nothing else, nor take those on its right.
    """
    added = added_tokens(tokenizer)
    if any(token.rstrip for token in tokenizer.get_added_tokens_decoder().values()):
        return None
    if is_byte_pairs(tokenizer):
        blank = [content for content in added if SPACE_OR_HAN.search(content)]
        if all(re.fullmatch(" {2,}", content) for content in blank):
            return BLANK_BETWEEN_WORDS if blank else BLANK_AFTER_WORD
    elif ends_words_at_blanks(tokenizer):
        return BLANK_BETWEEN_LETTERS
    elif is_bert(tokenizer) and not any(map(SPACE_OR_HAN.search, added)):
        return SPACE_OR_HAN if tokenizer.normalizer.handle_chinese_chars else SPACE
    return None


def find_run(tokenizer: "Rust") -> re.Pattern[str] | None:
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


def is_byte_pairs(tokenizer: "Rust") -> bool:
    """Whether a tokenizer makes byte pairs of words as GPT-2 does."""
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    return (
        isinstance(tokenizer.model, models.BPE)
        and not tokenizer.model.dropout
        and isinstance(splitter, pre_tokenizers.ByteLevel)
        and splitter.use_regex
        and (normalizer is None or isinstance(normalizer, normalizers.NFC))
    )


def is_bert(tokenizer: "Rust") -> bool:
    """Whether a tokenizer makes word pieces as BERT does."""
    from tokenizers import models, normalizers, pre_tokenizers

    return (
        isinstance(tokenizer.model, models.WordPiece)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
    )


def added_tokens(tokenizer: "Rust") -> list[str]:
    """Tokens that are found in a text before it is split."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]
