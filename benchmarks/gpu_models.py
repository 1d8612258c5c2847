"""The models of `benchmarks.gpu`: of random weights and the sizes that people have, and batches for them."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy import ones_like as ones
from tfbatch.batches import Feeds, Pictures
from tfbatch.batching.cutting import cut
from tfbatch.pictures.pixels import normalised_levels
from tfbatch_export.families import Family, load_family

from benchmarks.models import save_processor
from benchmarks.race import output_of
from benchmarks.workloads import HERE, MINILM

GRAPHS = {"fp32": "model.onnx", "fp16": "model_fp16.onnx"}
MOST = 256  # pictures of a batch
PICTURES = "pictures"
SHAPES = ("32", "128", "512", "mixed", PICTURES)
BATCHES = 8  # of a shape, one after another
MIXED = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 8)  # lengths of one row each, again and again
BERT = ("BertConfig", "BertForSequenceClassification")
VIT = ("ViTConfig", "ViTForImageClassification")
OFF = 0.05  # standard deviation of biases and scales from a new model's zeros and ones; zeros would not be added at all
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Batches that go through a model together: rows and length of each."""

    name: str
    batches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model by its transformers classes, and its configuration where that is not the default."""

    name: str
    task: str
    classes: tuple[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    rows: int = MOST

    @property
    def is_text(self) -> bool:
        return self.task == "text-classification"

    @property
    def family(self) -> Family:
        return load_family(getattr(transformers, self.classes[0]).model_type, self.task)

    @property
    def checkpoint(self) -> Path:
        return HERE / "checkpoints" / f"gpu-{self.name}"

    @property
    def bundle(self) -> Path:
        return HERE / "bundles" / f"gpu-{self.name}"

    def model_class(self) -> Any:
        return getattr(transformers, self.classes[1])

    def shapes(self, budget: int) -> list[Shape]:
        """Lengths 32, 128, 512 and mixed for texts, so many tokens a batch; one batch of pictures."""
        if not self.is_text:
            rows = max(1, min(self.rows, budget // 128))
            return [Shape(name=PICTURES, batches=((rows, 0),) * BATCHES)]
        plain = [
            Shape(name=str(length), batches=((max(1, budget // length), length),) * BATCHES)
            for length in (32, 128, 512)
        ]
        lengths = np.array(MIXED * max(1, 16 * budget // sum(MIXED)))
        batches = cut(lengths, np.zeros(len(lengths), np.int64), budget, 8)
        mixed = tuple(batch.shape for batch in batches)
        return [*plain, Shape(name="mixed", batches=mixed)]


CASES = {
    case.name: case
    for case in (
        Case(name="bert-base", task="text-classification", classes=BERT),
        Case(name="bert-large", task="text-classification", classes=BERT, config=LARGE),
        Case(name="vit-base", task="image-classification", classes=VIT),
        Case(name="vit-large", task="image-classification", classes=VIT, config=LARGE),
        Case(name="vit-mae", task="masked-im", classes=("ViTMAEConfig", "ViTMAEForPreTraining"), rows=64),
        Case(
            name="swin2sr", task="image-to-image", classes=("Swin2SRConfig", "Swin2SRForImageSuperResolution"), rows=64
        ),
    )
}


def make_checkpoint(case: Case) -> None:
    """Write one that is not there."""
    if case.checkpoint.is_dir():
        return
    import torch

    torch.manual_seed(0)
    partial = case.checkpoint.with_name(f"{case.checkpoint.name}.partial")
    config = getattr(transformers, case.classes[0])(**case.config)
    model = case.model_class()(config)
    for weights in model.parameters():
        if weights.dim() == 1:
            weights.data += OFF * torch.randn_like(weights)
    model.save_pretrained(partial)
    if case.is_text:
        transformers.AutoTokenizer.from_pretrained(MINILM.checkpoint).save_pretrained(partial)
    elif case.name == "swin2sr":
        transformers.Swin2SRImageProcessor().save_pretrained(partial)
    else:
        save_processor(partial)
    partial.rename(case.checkpoint)


def make_bundle(case: Case, device: str) -> None:
    """Export one that has not been; in half precision too, for a GPU."""
    graph = case.bundle / GRAPHS["fp32" if device == "cpu" else "fp16"]
    if not graph.is_file():
        words = [sys.executable, "-m", "tfbatch", "export", case.checkpoint, "-o", case.bundle, "--overwrite"]
        output_of([*map(str, words), *([] if device == "cpu" else ["--fp16"])])


def make_feeds(case: Case, shape: Shape) -> list[Feeds]:
    """Random tokens without padding; random pictures in bytes, as a job has them, and whatever else the family is
    traced with, again and again."""
    if case.is_text:
        random = np.random.default_rng(0)
        ids = [random.integers(1_000, 30_000, size) for size in shape.batches]
        return [{"input_ids": each, "attention_mask": ones(each), "token_type_ids": 0 * each} for each in ids]
    inputs, axes = case.family.trace_inputs(transformers.AutoConfig.from_pretrained(case.checkpoint))
    batched = {name for name, names in axes.items() if names.get(0) == "batch"}
    feeds: list[Feeds] = []
    for rows, _ in shape.batches:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        pixels = random_pictures(case, rows, *arrays.pop("pixel_values").shape[2:])
        others = {
            name: np.resize(array, (rows, *array.shape[1:])) if name in batched else array
            for name, array in arrays.items()
        }
        feeds.append({"pixel_values": pixels, **others})
    return feeds


def random_pictures(case: Case, rows: int, height: int, width: int) -> Pictures:
    settings = json.loads((case.checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))
    pixels = np.random.default_rng(0).integers(0, 256, (rows, height, width, 3), np.uint8)
    return Pictures(pixels=list(pixels), levels=normalised_levels({"do_normalize": False} | settings))
