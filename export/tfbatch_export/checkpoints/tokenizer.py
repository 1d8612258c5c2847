"""What a checkpoint makes of texts before its model sees them, held to what the run stage does."""

import tempfile
from pathlib import Path
from typing import Any

from tfbatch.bundles.json_files import token_count
from tfbatch.errors import BadConfiguration
from transformers import AutoTokenizer

from tfbatch_export.checkpoints.files import loading

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def read_tokenizer(checkpoint: Path) -> Any:
    """The Hub's tokenizer of a checkpoint.

    Raises:
        BadConfiguration: it has none, or none that can be read.
    """
    if not any((checkpoint / name).is_file() for name in VOCABULARIES):
        raise BadConfiguration(f"{checkpoint} has no tokenizer: one of {', '.join(VOCABULARIES)} is needed")
    with loading(checkpoint):
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)


def write_tokenizer(checkpoint: Path, tokenizer: Any, known: int, folder: Path) -> dict[str, Any]:
    """`tokenizer.json` and `tokenizer_config.json`, made where the checkpoint has a vocabulary alone.

    Raises:
        BadConfiguration: there is none that can be run, or not for a model that knows `known` tokens.
    """
    refuse_tokenizer(checkpoint, tokenizer, known)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (saved := Path(scratch) / name).exists():
                raise BadConfiguration(f"{checkpoint} gives no {name}; only tokenizers that `tokenizers` runs serve")
            (folder / name).write_bytes(saved.read_bytes())
    return {
        "max_length": token_count(tokenizer.model_max_length, f"{checkpoint}: model_max_length of the tokenizer"),
        "pad_token_id": tokenizer.pad_token_id or 0,
        "token_types": int("token_type_ids" in tokenizer.model_input_names),  # else the Hub gives a model none
    }


def refuse_tokenizer(checkpoint: Path, tokenizer: Any, known: int) -> None:
    """Refuse what run would do otherwise, and tokens beyond the `known` first ones; there may be gaps before them."""
    if (last := max(tokenizer.get_vocab().values(), default=0)) >= known:
        raise BadConfiguration(f"{checkpoint}: the tokenizer has a token {last:,}, the model knows {known:,} from 0 on")
    if tokenizer.padding_side != "right":
        raise BadConfiguration(f"{checkpoint} pads on the left; row lengths as a mask need padding on the right")
    if tokenizer.truncation_side != "right":
        raise BadConfiguration(f"{checkpoint} cuts long texts on the left (truncation_side), run does on the right")
    if getattr(tokenizer, "split_special_tokens", False):
        raise BadConfiguration(
            f"{checkpoint} takes special tokens in a text apart (split_special_tokens), run takes them as they are"
        )
