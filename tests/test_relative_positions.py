"""Families whose tokens are told by how far apart they are: fused in every layer, and equal to transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir
import pyarrow.parquet as pq
import pytest
import torch
from conftest import WORDS, export_once
from embedders import TEXTS, by_hand, compare, run
from fusion import fused_and_compared
from real_rows import MADE, REVIEWS
from real_rows import compare as compare_labels
from text_checkpoints import V3
from tfbatch.bundle import load_bundle
from tfbatch.bundles.pooling import Pooling
from tfbatch.errors import ExportNotVerified
from tfbatch_export import graphs as graphs_module
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2Tokenizer,
    MPNetConfig,
    MPNetTokenizer,
)

pytestmark = pytest.mark.families

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'@#-"
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
SIZE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "initializer_range": 0.3, "id2label": LABELS,
}  # fmt: skip
PROJECTED_APART = {
    "position_buckets": -1, "max_relative_positions": 20, "share_att_key": False, "norm_rel_ebd": "none",
    "position_biased_input": True, "type_vocab_size": 2,
}  # fmt: skip
AS_XLARGE = {"conv_kernel_size": 3, "conv_act": "gelu", "embedding_size": 24, "position_buckets": 16}
Maker = Callable[..., Path]


def make_mpnet(folder: Path, auto_class: Any = AutoModelForSequenceClassification) -> Path:
    """An MPNet of 2 layers, 32 wide, on 512 tokens: a few words, and the letters of all others."""
    torch.manual_seed(1)
    words = ["<s>", "<pad>", "</s>", "[UNK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "<mask>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    config = MPNetConfig(**SIZE, vocab_size=len(vocabulary), max_position_embeddings=514)
    auto_class.from_config(config).save_pretrained(folder)
    MPNetTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    return folder


def make_deberta_v2(folder: Path, auto_class: Any = AutoModelForSequenceClassification, **more: Any) -> Path:
    """A DeBERTa-v3 of 2 layers, 32 wide, on 512 tokens; its vocabulary has scores, its tokenizer no length."""
    torch.manual_seed(1)
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    pieces = [f"▁{word}" for word in WORDS[:-1]] + ["▁", *LETTERS]
    scored = [(piece, -1.0 - len(pieces) / (1 + len(piece))) for piece in dict.fromkeys(pieces)]
    vocabulary = [*special, *scored, ("[MASK]", 0.0)]
    config = DebertaV2Config(**SIZE | V3 | more, vocab_size=len(vocabulary))
    auto_class.from_config(config).save_pretrained(folder)
    DebertaV2Tokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


MAKERS: dict[str, Maker] = {"mpnet": make_mpnet, "deberta_v2": make_deberta_v2}


@pytest.mark.parametrize(
    ("name", "config", "normalisations"),
    [
        ("mpnet", MPNetConfig(**SIZE, vocab_size=99, max_position_embeddings=514), 5),
        ("deberta_v2", DebertaV2Config(**SIZE | V3, vocab_size=99), 5),
        pytest.param("deberta_v2", DebertaV2Config(**SIZE | V3 | AS_XLARGE, vocab_size=99), 6),
        pytest.param("deberta_v2", DebertaV2Config(**SIZE | V3 | PROJECTED_APART, vocab_size=99), 5),
        pytest.param(
            "deberta_v2",
            DebertaV2Config(**SIZE | V3 | PROJECTED_APART | {"pos_att_type": "p2c"}, vocab_size=99),
            5,
            marks=pytest.mark.families,
        ),
        ("deberta_v2", DebertaV2Config(**SIZE, vocab_size=99), 5),
    ],
    ids=["mpnet", "v3", "v2-xlarge", "projected-apart", "p2c-alone", "not-relative"],
)
def test_every_layer_is_one_attention_and_equal_to_torch(
    name: str, config: Any, normalisations: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    counts, parity = fused_and_compared(name, "text-classification", model, tmp_path)
    fused = {"MultiHeadAttention": 2, "BiasGelu": 2, "LayerNormalization": normalisations, "Softmax": 0}
    assert {operator: counts.get(operator, 0) for operator in fused} == fused
    assert {record["batch"] for record in parity} >= {"1 x 2", "7 x 17, padded", "7 x 512", "7 x 512, padded"}


@pytest.mark.parametrize("name", MAKERS)
def test_labels_equal_those_of_transformers_on_real_rows(name: str, tmp_path: Path) -> None:
    from transformers import pipeline

    assert REVIEWS.is_file(), MADE
    checkpoint = MAKERS[name](tmp_path / name)
    bundle = export_once(checkpoint)
    assert load_bundle(bundle).setting("max_length") == 512
    texts = pq.read_table(REVIEWS)["text"].slice(0, 99).to_pylist()
    texts.append(" ".join(texts))  # far more than 512 tokens
    found = run(bundle, texts, tmp_path).to_pylist()
    reference = pipeline("text-classification", model=str(checkpoint), device="cpu")
    expected = [reference(text, truncation=True, max_length=512)[0] for text in texts]
    assert len({row["predicted_label"] for row in found}) > 1
    compare_labels(found, expected, tolerance=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_embeddings_equal_those_of_torch(name: str, tmp_path: Path) -> None:
    checkpoint = MAKERS[name](tmp_path / name, AutoModel)
    bundle = export_once(checkpoint)
    manifest = load_bundle(bundle).manifest
    assert manifest.task == "feature-extraction"
    assert manifest.graphs["fp32"].fused["MultiHeadAttention"] == 2
    compare(run(bundle, TEXTS, tmp_path), by_hand(checkpoint, TEXTS, Pooling(), 512))


@pytest.mark.parametrize(("name", "place"), [("mpnet", 4), ("deberta_v2", 5)], ids=["row lengths", "bias"])
def test_an_attention_that_knows_no_distances_or_no_padding_is_refused(
    name: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        node = next(node for node in fused.graph if node.op_type == "MultiHeadAttention")
        node.replace_input_with(place, None)
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    with pytest.raises(ExportNotVerified, match="differs from PyTorch by"):
        export(ExportConfig(model=str(MAKERS[name](tmp_path / name)), output=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()
