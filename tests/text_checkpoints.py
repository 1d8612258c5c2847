"""Checkpoints of every text family: three layers, 32 wide, untrained, with a tokenizer of the family's own
kind that is trained on a few hundred reviews."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import ROOT

REVIEWS = ROOT / "build" / "data" / "reviews.parquet"
LONGEST = 512
ROWS = 200
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
LABELS_OF = {
    "question-answering": {0: "start", 1: "end"},
    "sentence-similarity": {0: "similarity"},
    "token-classification": {0: "O", 1: "B-PER", 2: "I-PER"},
    "zero-shot-classification": {0: "contradiction", 1: "neutral", 2: "entailment"},
}
WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@cache
def real_texts() -> list[str]:
    """200 reviews, and 12 documents of 10 to 120 of them."""
    assert REVIEWS.is_file(), "made by `make data`, which `make test` does first"
    reviews: list[str] = pq.read_table(REVIEWS)["text"].to_pylist()
    return reviews[:ROWS] + [" ".join(reviews[at : at + 10 * (at % 12 + 1)]) for at in range(300, 312)]


def train(tokenizer: Any, trainer: Any) -> dict[str, Any]:
    """The model of a tokenizer trained on the reviews, as tokenizer.json has it."""
    tokenizer.train_from_iterator(real_texts(), trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return content


def word_pieces(class_name: str, special: list[str] = WORD_PIECES) -> Any:
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    rust = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer, rust.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    model = train(rust, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    return getattr(transformers, class_name)(vocab=model["vocab"], model_max_length=LONGEST)


def byte_pairs(special: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    model = train(rust, trainer)
    return rust, model


def roberta_tokenizer(**options: Any) -> Any:
    from transformers import RobertaTokenizer

    _, model = byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    merges = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LONGEST, **options)


def modernbert_tokenizer() -> Any:
    """GPT-NeoX's byte pairs, with runs of blanks as tokens, in BERT's frame."""
    from tokenizers import AddedToken, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    rust, _ = byte_pairs(WORD_PIECES)
    rust.normalizer = normalizers.NFC()
    rust.add_tokens([AddedToken(" " * run, normalized=True) for run in (2, 3, 4, 8)])
    frame = [(token, rust.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, model_max_length=LONGEST, model_input_names=["input_ids", "attention_mask"],
        unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]",
    )  # fmt: skip


def unigrams(class_name: str, first: list[str], unknown: str = "<unk>") -> Any:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rust = Tokenizer(models.Unigram())
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=first, unk_token=unknown, show_progress=False)
    vocabulary = [(piece, score) for piece, score in train(rust, trainer)["vocab"]]
    return getattr(transformers, class_name)(vocab=vocabulary, model_max_length=LONGEST)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "albert": lambda: unigrams("AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
    "bert": lambda: word_pieces("BertTokenizer"),
    "camembert": lambda: unigrams(
        "CamembertTokenizer", ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<mask>"]
    ),
    "deberta_v2": lambda: unigrams("DebertaV2Tokenizer", ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]"),
    "distilbert": lambda: word_pieces("DistilBertTokenizer"),
    "electra": lambda: word_pieces("BertTokenizer"),
    "modernbert": modernbert_tokenizer,
    "mpnet": lambda: word_pieces("MPNetTokenizer", ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]),
    "roberta": roberta_tokenizer,
    "xlm_roberta": lambda: unigrams("XLMRobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
}

AFTER_PADDING = {"max_position_embeddings": LONGEST + 2}  # of which the first two are no token's
V3 = {
    "relative_attention": True, "position_buckets": 256, "max_relative_positions": -1, "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16, "max_position_embeddings": LONGEST},
    "bert": {},
    "camembert": AFTER_PADDING,
    "deberta_v2": V3,
    "distilbert": {},
    "electra": {"embedding_size": 16},
    "modernbert": {"max_position_embeddings": LONGEST},
    "mpnet": AFTER_PADDING,
    "roberta": AFTER_PADDING,
    "xlm_roberta": AFTER_PADDING,
}


def make_config(name: str, tokenizer: Any, labels: dict[int, str] = LABELS) -> Any:
    """Two heads, three layers, three labels; BERT's names are known to each family's configuration or renamed.

    Wider weights make attention so steep that PyTorch's own float32 is 1e-4 off its float64.
    """
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "dim" if name == "distilbert" else "hidden_size": 32,
        "hidden_dim" if name == "distilbert" else "intermediate_size": 64,
    }  # fmt: skip
    special = {
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id, "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }  # fmt: skip
    options = {
        **sizes,
        **special,
        **SIZES[name],
        "id2label": labels,
        "label2id": {label: index for index, label in labels.items()},
        "vocab_size": len(tokenizer),
    }
    return AutoConfig.for_model(name.replace("_", "-"), initializer_range=0.3, **options)


def make_text_checkpoint(name: str, task: str, folder: Path) -> Path:
    """A checkpoint of a family for a task, as `save_pretrained` writes it."""
    import torch
    from tfbatch_export.checkpoint import auto_class
    from tfbatch_export.families import load_family

    torch.manual_seed(1)
    tokenizer = TOKENIZERS[name]()
    model = auto_class(task, load_family(name, task)).from_config(
        make_config(name, tokenizer, LABELS_OF.get(task, LABELS))
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def empty_layers(model: Any) -> None:
    """Leave nothing of a model but its words, each of which is a dimension of its own."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.zero_()
        words = model.bert.embeddings.word_embeddings.weight
        words[torch.arange(len(words)), torch.arange(len(words))] = 1
