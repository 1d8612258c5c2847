"""Tiny models made from configurations, exported for real; nothing is downloaded."""

import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

if TYPE_CHECKING:
    from s3 import S3

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["good", "bad", "fine", "dull", "film", "book", "the", "a", "is", "was", "not", "very", "plot", "actor", "##s"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HELPERS = ("bundles", "embedders", "fusion", "photographs", "real_rows", "text_comparisons", "vision")
pytest.register_assert_rewrite(*HELPERS)  # whose asserts say what they found too


@dataclass(frozen=True)
class Finished:
    """A tfbatch process that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line of standard output."""
        content: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return content


def run_tfbatch(*words: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Finished:
    """Call the command line in a process of its own."""
    command = [sys.executable, "-m", "tfbatch.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=tfbatch_env(env), capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


def tfbatch_env(more: dict[str, str] | None = None) -> dict[str, str]:
    """This environment without settings of tfbatch's own, and with its sources."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TFBATCH_")}
    sources = [str(ROOT / folder) for folder in ("pipeline", "export")]
    path = [*sources, *filter(None, [os.environ.get("PYTHONPATH")])]
    return clean | {"PYTHONPATH": os.pathsep.join(path)} | (more or {})


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, that knows twenty words and takes 64 tokens."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("checkpoints") / "bert"
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, id2label={0: "negative", 1: "neutral", 2: "positive"},
        initializer_range=0.6,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(SPECIAL + WORDS)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 2 layers, 32 wide, on 32 x 32 pictures."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoints") / "vit"
    torch.manual_seed(1)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, id2label={0: "cat", 1: "dog"}, initializer_range=0.6,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def make_picture_model(name: str, folder: Path) -> Path:
    """A checkpoint of a family that makes pictures, a few layers, 16 or 32 wide, untrained."""
    import torch
    from transformers import (
        DeiTConfig,
        DeiTForMaskedImageModeling,
        Swin2SRConfig,
        Swin2SRForImageSuperResolution,
        SwinConfig,
        SwinForMaskedImageModeling,
        ViTConfig,
        ViTForMaskedImageModeling,
        ViTMAEConfig,
        ViTMAEForPreTraining,
    )  # fmt: skip
    from transformers.models.swin2sr.image_processing_pil_swin2sr import Swin2SRImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(1)
    plain = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "image_size": 32, "patch_size": 8, "initializer_range": 0.3,
    }  # fmt: skip
    decoder = {
        "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 64, "norm_pix_loss": True,
    }  # fmt: skip
    windows = {"embed_dim": 16, "depths": [2, 2], "image_size": 32}
    match name:
        case "vit":
            model: Any = ViTForMaskedImageModeling(ViTConfig(**plain, encoder_stride=8))
        case "deit":
            model = DeiTForMaskedImageModeling(DeiTConfig(**plain, encoder_stride=8))
        case "vit_mae":
            model = ViTMAEForPreTraining(ViTMAEConfig(**plain, **decoder))
        case "swin":
            config = SwinConfig(**windows, num_heads=[2, 4], patch_size=2, window_size=4, encoder_stride=4)
            model = SwinForMaskedImageModeling(config)
        case "swin2sr":
            windows["depths"] = [2]  # windows and shifted ones; each more takes seconds to trace
            config = Swin2SRConfig(**windows, num_heads=[2], window_size=8, upsampler="pixelshuffledirect")
            model = Swin2SRForImageSuperResolution(config)
    model.save_pretrained(folder)
    if name == "swin2sr":
        Swin2SRImageProcessorPil().save_pretrained(folder)
    else:
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The checkpoint and the bundle of a family that makes pictures, made once each."""
    root = tmp_path_factory.mktemp("picture-models")

    @cache
    def make(name: str) -> tuple[Path, Path]:
        checkpoint = make_picture_model(name, root / name)
        return checkpoint, export_once(checkpoint)

    return make


@pytest.fixture(scope="session")
def text_bundle(text_checkpoint: Path) -> Path:
    return export_once(text_checkpoint)


@pytest.fixture(scope="session")
def image_bundle(image_checkpoint: Path) -> Path:
    return export_once(image_checkpoint)


def export_once(checkpoint: Path, **more: Any) -> Path:
    from tfbatch_export.config import ExportConfig
    from tfbatch_export.export import export

    output = checkpoint.parent / f"{checkpoint.name}-bundle"
    return export(ExportConfig(model=str(checkpoint), output=output, **more)).path


def allow_ties(patch: pytest.MonkeyPatch) -> None:
    """Hold int8 to the gate's cosine, but to nine labels of ten: many of a random head's are next to a tie."""
    from tfbatch_export import parity

    strict = parity.REAL["int8"]
    patch.setitem(parity.REAL, "int8", replace(strict, label_agreement=parity.MADE_UP["fp16"].label_agreement))


@pytest.fixture
def many_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_ties(monkeypatch)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """1,000 rows with an id, a text of 1 to 40 words and a column that must come through untouched."""
    return write_reviews(tmp_path / "reviews.parquet", rows=1000)


def write_reviews(path: Path, rows: int, *, row_group: int = 300, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS[:-1], random.integers(1, 41))) for _ in range(rows)]
    table = pa.table({"id": np.arange(rows), "text": pa.array(texts, pa.string()), "weight": random.random(rows)})
    pq.write_table(table, path, row_group_size=row_group)
    return path


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Makes an encoded picture of random pixels."""

    def make(size: tuple[int, int] = (40, 30), mode: str = "RGB", form: str = "PNG", seed: int = 0) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, form)
        return buffer.getvalue()

    return make


def read_output(folder: Path) -> pa.Table:
    """All parts of an output, in order."""
    return pa.concat_tables([pq.read_table(part, partitioning=None) for part in sorted(folder.rglob("part-*.parquet"))])


def part_hashes(folder: Path) -> dict[str, str]:
    """Each part's name and content."""
    from tfbatch.host.hashes import sha256

    return {path.name: sha256(path) for path in sorted(folder.rglob("part-*.parquet"))}


def tree(folder: Path) -> dict[str, str]:
    """Each output file and its content."""
    from tfbatch.host.hashes import sha256

    files = [file for file in folder.rglob("*") if file.is_file() and "_tfbatch" not in file.parts]
    return {str(file.relative_to(folder)): sha256(file) for file in files if file.name != "_SUCCESS"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server."""
    from s3 import serve

    with serve() as url:
        yield url


@pytest.fixture
def s3(s3_server: str) -> "S3":
    """A bucket of the test's own."""
    from s3 import make_bucket

    return make_bucket(s3_server, f"bucket-{uuid.uuid4().hex}")
