"""Train a small vision transformer from scratch: the source of `models/fashion`.

`python examples/train_fashion.py FOLDER` reads the four IDX files of Fashion-MNIST (Debian's
package `dataset-fashion-mnist` puts them in /usr/share/datasets/fashion-mnist), trains a ViT of
4 layers, 128 wide, on 4 x 4 patches, and writes a Hugging Face checkpoint (fp16, 1.6 MB) and a
sample of test pictures to `examples/fashion/`.

The three input channels are the grey picture three times, so that any photograph fits the model.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from data import FASHION_SAMPLE, IMAGE, encode, fashion_mnist
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, get_cosine_schedule_with_warmup
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
          "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")  # fmt: skip
MEAN, STD = 0.2860, 0.3530  # of the training pictures, from 0 to 1
SAMPLE = 2000  # pictures kept for the demo


def build() -> ViTForImageClassification:
    return ViTForImageClassification(
        ViTConfig(
            image_size=28, patch_size=4, num_channels=3, hidden_size=128, intermediate_size=512,
            num_hidden_layers=4, num_attention_heads=4, hidden_dropout_prob=0.0,
            id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
        )
    )  # fmt: skip


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """(N, 28, 28) uint8 to (N, 1, 28, 28) float32 of zero mean and unit deviation."""
    return ((torch.from_numpy(pictures.copy()).float() / 255 - MEAN) / STD).unsqueeze(1)


def augmented(batch: torch.Tensor, shift: int) -> torch.Tensor:
    """Mirror each picture or not, by chance, and roll all of them by up to `shift` pixels."""
    mirrored = torch.rand(len(batch), 1, 1, 1) < 0.5
    batch = torch.where(mirrored, batch.flip(-1), batch)
    down, right = torch.randint(-shift, shift + 1, (2,)).tolist()
    return batch.roll((down, right), dims=(-2, -1))


def train(model: torch.nn.Module, pictures: torch.Tensor, labels: torch.Tensor, *,
          epochs: int, rate: float, size: int, shift: int) -> None:  # fmt: skip
    """AdamW, 5 % warm-up, then a cosine to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * (len(pictures) // size)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    model.train()
    started, step = time.monotonic(), 0
    for epoch in range(epochs):
        for chosen in torch.randperm(len(pictures)).split(size):
            if len(chosen) < size:
                continue
            batch = augmented(pictures[chosen], shift).expand(-1, 3, -1, -1)
            logits = model(pixel_values=batch).logits
            loss = torch.nn.functional.cross_entropy(logits, labels[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 100 == 0:
                print(f"epoch {epoch + 1}, step {step}/{steps}, loss {loss.item():.3f}, "
                      f"{time.monotonic() - started:.0f} s", flush=True)  # fmt: skip


@torch.inference_mode()
def accuracy(model: torch.nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    found = [model(pixel_values=part.expand(-1, 3, -1, -1)).logits.argmax(-1) for part in pictures.split(500)]
    return float((torch.cat(found) == labels).float().mean())


def save(model: ViTForImageClassification, folder: Path) -> None:
    """The checkpoint in fp16, with the processor that fits it."""
    model.half().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 28, "width": 28}, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(
        folder
    )


def write_sample(pictures: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first pictures of the test split, as PNG, in the form Hugging Face `datasets` reads."""
    encoded = [encode(Image.fromarray(picture)) for picture in pictures[:SAMPLE]]
    table = pa.table({"image": pa.array(encoded, IMAGE), "label": pa.array([LABELS[i] for i in labels[:SAMPLE]])})
    pq.write_table(table, path, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the IDX files are")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--shift", type=int, default=2, help="pixels by which training pictures are moved at most")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FASHION_SAMPLE.parent)
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    pictures, labels = fashion_mnist(options.folder, "train")
    test_pictures, test_labels = fashion_mnist(options.folder, "t10k")
    model = ViTForImageClassification.from_pretrained(options.start, dtype=torch.float32) if options.start else build()
    train(model, normalised(pictures), torch.from_numpy(labels.astype(np.int64)),
          epochs=options.epochs, rate=options.rate, size=options.batch, shift=options.shift)  # fmt: skip
    model = model.half().float()  # what is saved is what is measured
    score = accuracy(model, normalised(test_pictures), torch.from_numpy(test_labels.astype(np.int64)))
    print(f"{score:.2%} of {len(test_pictures):,} test pictures")
    save(model, options.out)
    write_sample(test_pictures, test_labels, options.out / "sample.parquet")


if __name__ == "__main__":
    main()
