"""A model that embeds texts, and its embeddings by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from conftest import SPECIAL, WORDS, read_output, run_tfbatch
from tfbatch.bundles.pooling import Pooling
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

TEXTS = ["good film", "", "the plot was not very good", None, "good film", "dull " * 40, "🎬", " \n", "bad"]
STEPS = ["Transformer", "Pooling", "Normalize"]


def make_embedder(folder: Path, *, pooler: bool = True) -> Path:
    """A BERT of 2 layers, 32 wide, without a head."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.6,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


def say_how(folder: Path, steps: list[str], pooling: dict[str, Any], **more: dict[str, Any]) -> None:
    """Write the files of sentence-transformers; `more` are further ones, by name."""
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{step}" if index else "",
            "type": f"sentence_transformers.models.{step}",
        }
        for index, step in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, content in more.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@torch.inference_mode()
def by_hand(checkpoint: Path, texts: list[str | None], pooling: Pooling, length: int) -> list[Any]:
    """The embedding of each text, which goes through the model by itself, unpadded."""
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()

    def embed(text: str) -> npt.NDArray[np.float32]:
        inputs = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        states = model(**inputs).last_hidden_state[0].numpy()
        found: npt.NDArray[np.float32] = states[0] if pooling.mode == "cls" else states.mean(0)
        return found / np.sqrt((found**2).sum()) if pooling.normalised else found

    return [None if text is None else embed(text) for text in texts]


def run(bundle: Path, texts: list[str | None], folder: Path, *words: object) -> pa.Table:
    """The output for a column of texts."""
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", *words)
    assert done.code == 0, done.err
    return read_output(folder / "out")


def compare(table: pa.Table, expected: list[Any]) -> None:
    """A null with a reason just where nothing is expected, else the same numbers."""
    width = len(next(embedding for embedding in expected if embedding is not None))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), width)
    assert len(table) == len(expected)
    for row, embedding in zip(table.to_pylist(), expected, strict=True):
        assert (row["embedding"] is None) == (row["error"] is not None) == (embedding is None)
        if embedding is not None:
            np.testing.assert_allclose(row["embedding"], embedding, atol=1e-4)
