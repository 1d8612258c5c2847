"""Where a word ends to Unigram tokenizers that mark beginnings by Metaspace (SentencePiece, Kudo and
Richardson, 2018), as XLM-RoBERTa, CamemBERT and ALBERT have them.

Their words are tokenized one by one, so what is to be shown is that a blank stays one, and alone,
through the normalizers. They work on grapheme clusters, and may make a blank of half an accent: a
blank counts where letters stand on both sides that no cluster joins to it and that hold no blank.
"""

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Rust

# ASCII, Latin, Greek and Cyrillic, Hebrew, Arabic, Devanagari, kana, Han, Hangul: no mark, no sign that
# joins what follows, nothing that Unicode decomposes with a blank.
LETTER = (
    "[!-~\u00c0-\u02af\u0386-\u0481\u048a-\u052f\u05d0-\u05ea\u0620-\u064a\u0671-\u06d3"
    "\u0904-\u0939\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3]"
)
BLANK_BETWEEN_LETTERS = re.compile(rf"(?<={LETTER}) (?={LETTER})")
BLANK_KEEPERS = {"NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase", "Precompiled"}
RUN_OF_BLANKS = {"Regex": " {2,}"}


def ends_words_at_blanks(tokenizer: "Rust") -> bool:
    """Whether tokens before a BLANK_BETWEEN_LETTERS do not depend on what follows, nor those after it on
    what was before."""
    from tokenizers import models

    if not isinstance(tokenizer.model, models.Unigram):
        return False
    splitters = steps(tokenizer.pre_tokenizer, "pretokenizers")
    if [step["type"] for step in splitters] not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return False
    if not splitters[-1].get("split", True):
        return False
    return all(map(keeps_blank, steps(tokenizer.normalizer, "normalizers"))) and is_blank_whole(tokenizer)


def steps(part: Any, name: str) -> list[dict[str, Any]]:
    """What a part of a tokenizer consists of, as tokenizer.json has it; nothing where there is none."""
    if part is None:
        return []
    content = json.loads(part.__getstate__())
    found: list[dict[str, Any]] = content[name] if content["type"] == "Sequence" else [content]
    return found


def keeps_blank(normalizer: dict[str, Any]) -> bool:
    """Whether a normalizer leaves a blank that stands alone as it is, and looks at nothing across it."""
    match normalizer["type"]:
        case "Replace":
            pattern = normalizer["pattern"]
            return pattern == RUN_OF_BLANKS or not re.search(r"\s", pattern.get("String", " "))
        case "Strip":
            return not normalizer["strip_left"]
        case kind:
            return kind in BLANK_KEEPERS


def is_blank_whole(tokenizer: "Rust") -> bool:
    """Whether the normalizers leave a blank between letters a blank, and no added token holds one."""
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    if normalize("a b") != "a b":
        return False
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return not any(re.search(r"\s", content + normalize(content)) for content in added)
