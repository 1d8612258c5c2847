"""Texts that were made to break something."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import read_output, run_tfbatch, tfbatch_env
from tfbatch.bundle import load_bundle
from tfbatch.text.tokenizer import Tokenizer
from tokenizers import Tokenizer as Rust
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

pytestmark = pytest.mark.faults

CHARACTERS, BYTES = 100_000, 50e6  # that are tokenized of ten megabytes, and that they may cost over a short text
HUGE = {
    "words": "'good film ' * 1_000_000", "Chinese": "'电影' * 1_666_666",
    "one word": "'x' * 10_000_000", "blanks": "' ' * 10_000_000",
}  # fmt: skip
COST = """
import sys, time
from pathlib import Path
from tfbatch.bundle import load_bundle
from tfbatch.host.machine import peak_memory
from tfbatch.text.tokenizer import Tokenizer
class Counted:
    characters = 0
    def __init__(self, rust):
        self._rust = rust
    def __getattr__(self, name):
        return getattr(self._rust, name)
    def encode_batch_fast(self, texts):
        self.characters = max(self.characters, sum(map(len, texts)))
        return self._rust.encode_batch_fast(texts)
texts, huge = Tokenizer(load_bundle(Path(sys.argv[1]))), eval(sys.argv[2])
texts.encode(["good film"] * 100)
texts._rust = counted = Counted(texts._rust)
before, seconds = peak_memory(), []
for text in ["good film", huge] * 3:
    started = time.process_time()
    texts.encode([text])
    seconds.append(time.process_time() - started)
print(min(seconds[1::2]) - min(seconds[::2]), peak_memory() - before, counted.characters)
"""
STRINGS = 10_000
PIECES = [
    "good", "film", "plots", "naïve", "don't", "I'll", "'s", "42", "3.14", "...", "!?", "-", "x" * 130, "é", "e\u0301",
    "\u0301",
    "电影", "фильм", "فيلم", "🎬", "👩‍👩‍👧", "[SEP]", "[MASK]", "[SE", "P]", "<mask>", "a\u00adb", "\u200b", "\u180e",
    "\x00", "\x1c",
    "\x85", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", " " * 300, "\n" * 200,
]  # fmt: skip
JOINTS = ["", " ", "  ", "\n", "\x1c", "\u180e", "\u00a0", "\u3000"]


@pytest.mark.parametrize("kind", HUGE)
def test_ten_megabytes_cost_little_more_than_a_short_text(kind: str, text_bundle: Path) -> None:
    command = [sys.executable, "-c", COST, str(text_bundle), HUGE[kind]]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=True)
    seconds, more, tokenized = map(float, done.stdout.split())
    print(f"{kind}: {seconds * 1000:.0f} ms, {more / 1e6:.0f} MB, {tokenized:,.0f} characters tokenized")
    assert 0 < tokenized < CHARACTERS
    assert more < BYTES


def generated(random: np.random.Generator) -> str:
    """A text of a few to some hundred pieces; one in twenty of one endless run."""
    if random.random() < 0.05:
        run = random.choice(["x", " ", "\n", "x ", "aB3", "\x00", "é"])
        return str(random.choice(PIECES)) + str(run) * int(random.integers(1, 10_000)) + str(random.choice(PIECES))
    joint = str(random.choice(JOINTS))
    return joint.join(random.choice(PIECES, random.integers(1, 100)))


def word_pieces() -> Rust:
    tokenizer = Rust(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(PIECES * 5, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_pairs() -> Rust:
    """As GPT-2 and RoBERTa have them."""
    tokenizer = Rust(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(PIECES)] * 5, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def sentence_pieces() -> Rust:
    """As XLM-RoBERTa and ALBERT have them."""
    tokenizer = Rust(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([" ".join(PIECES)] * 5, trainer)
    return tokenizer


@pytest.mark.parametrize("make", [word_pieces, byte_pairs, sentence_pieces])
def test_token_ids_are_those_of_the_whole_text(make: object, text_bundle: Path, tmp_path: Path) -> None:
    assert callable(make)
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in text_bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    bundle = load_bundle(copy)
    make().save(str(copy / "tokenizer.json"))
    whole = Rust.from_file(str(copy / "tokenizer.json"))
    random = np.random.default_rng(0)
    texts = [generated(random) for _ in range(STRINGS)]
    tokenizer = Tokenizer(bundle, 16)
    whole.enable_truncation(16)
    for text, ids, encoding in zip(texts, tokenizer.encode(texts).ids, whole.encode_batch(texts), strict=True):
        assert ids.tolist() == encoding.ids, repr(text[:200])
    shorter = sum(len(tokenizer._excerpts.prefix(text, 8 * 16)) < len(text) for text in texts)
    print(f"{make.__name__}: {shorter:,} of {STRINGS:,} texts cut first")
    assert shorter > STRINGS / 10


def naughty_strings() -> list[str]:
    strings: list[str] = json.loads((Path(__file__).parent / "blns.json").read_text(encoding="utf-8"))
    return strings


def test_naughty_strings_are_texts_like_any_other(text_bundle: Path, tmp_path: Path) -> None:
    texts = naughty_strings()
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    table = read_output(tmp_path / "out")
    assert table["text"].to_pylist() == texts
    assert table["error"].null_count == len(texts) > 400
    alone = scores_one_by_one(text_bundle, texts)
    assert table["predicted_label"].to_pylist() == [label for label, _ in alone]
    np.testing.assert_allclose(table["predicted_score"], [score for _, score in alone], atol=1e-6)
    print(f"{len(texts)} strings")


def scores_one_by_one(bundle_path: Path, texts: list[str]) -> list[tuple[str, float]]:
    """Each text through onnxruntime by itself, tokenized whole, without anything of the pipeline's."""
    import onnxruntime

    tokenizer = Rust.from_file(str(bundle_path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    session = onnxruntime.InferenceSession(str(bundle_path / "model.onnx"), providers=["CPUExecutionProvider"])
    labels = load_bundle(bundle_path).manifest.labels
    found = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = session.run(None, {given.name: feeds[given.name] for given in session.get_inputs()})[0][0]
        raised = np.exp(logits - logits.max())
        found.append((labels[int(logits.argmax())], float((raised / raised.sum()).max())))
    return found


POISON = {
    "null": None,
    "invalid UTF-8": b"good \xff\xfe film",
    "lone surrogate": b"good \xed\xa0\x80 film",
    "ten megabytes": b"good film " * 1_000_000,
    "ten megabytes of one word": b"x" * 10_000_000,
    "NUL": b"\x00" * 1000,
}


@pytest.mark.parametrize("name", POISON)
def test_one_poisonous_text_changes_no_other_row(name: str, reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    cells = [text.encode() for text in pq.read_table(reviews)["text"].to_pylist()]
    tables = []
    for folder, cell in (("good", b"good film"), ("poison", POISON[name])):
        rows = pa.array([*cells[:500], cell, *cells[500:]], pa.binary())
        text = pa.Array.from_buffers(pa.string(), len(rows), rows.buffers())
        pq.write_table(pa.table({"id": range(len(rows)), "text": text}), tmp_path / f"{folder}.parquet")
        words = ["-m", text_bundle, "-o", tmp_path / folder, "--keep-columns", "id"]
        done = run_tfbatch("run", tmp_path / f"{folder}.parquet", *words)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        tables.append(read_output(tmp_path / folder))
    good, poisoned = (table.filter(pc.not_equal(table["id"], 500)) for table in tables)
    assert good.num_rows == 1000
    assert good.drop("predicted_score").equals(poisoned.drop("predicted_score"))
    apart = np.abs(np.asarray(good["predicted_score"]) - np.asarray(poisoned["predicted_score"]))
    print(f"{name}: {np.count_nonzero(apart)} of 1,000 scores differ, by {apart.max():.1e} at most")
    assert apart.max() == 0
    expected = name in ("null", "invalid UTF-8", "lone surrogate")
    assert tables[1]["error"].is_valid().to_pylist() == [row == 500 and expected for row in range(1001)]
