"""Train a small vision transformer to make the hidden parts of pictures: the source of `models/inpaint`.

`python examples/train_inpaint.py FOLDER` reads the four IDX files of Fashion-MNIST (Debian's
package `dataset-fashion-mnist` puts them in /usr/share/datasets/fashion-mnist), trains a
ViTForMaskedImageModeling of 4 layers, 128 wide, on 4 x 4 patches, and writes a Hugging Face
checkpoint (fp16) to `examples/inpaint/`. The body starts from the classifier in
`examples/fashion`, which has the same shape.

Four pictures of five have half of their patches hidden at random, the fifth a rectangle: the
first is what the model is measured on, the second what a user paints over.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from data import FASHION_SAMPLE, ROOT, fashion_mnist
from train_fashion import MEAN, STD, normalised
from transformers import ViTConfig, ViTForMaskedImageModeling, get_cosine_schedule_with_warmup
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

GRID, PATCH = 7, 4
RATIO = 0.5  # of the patches are hidden


def build() -> ViTForMaskedImageModeling:
    """The body of `examples/fashion` with a mask token and a new decoder."""
    config = ViTConfig.from_pretrained(FASHION_SAMPLE.parent, encoder_stride=PATCH, num_labels=2)
    config.mask_ratio = RATIO
    return ViTForMaskedImageModeling.from_pretrained(FASHION_SAMPLE.parent, config=config, dtype=torch.float32)


def masks(count: int, generator: torch.Generator) -> torch.Tensor:
    """Hidden patches (count, 49) bool."""
    order = torch.rand(count, GRID * GRID, generator=generator).argsort(1).argsort(1)
    hidden = order < int(RATIO * GRID * GRID)
    corners = torch.randint(0, GRID - 1, (2, count, 1), generator=generator)
    sides = torch.randint(2, 6, (2, count, 1), generator=generator)
    line = torch.arange(GRID)
    inside = [(line >= corner) & (line < corner + side) for corner, side in zip(corners, sides, strict=True)]
    rectangle = (inside[0][:, :, None] & inside[1][:, None, :]).flatten(1)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.2, rectangle, hidden)


def by_pixel(hidden: torch.Tensor) -> torch.Tensor:
    """(N, 49) bool to (N, 1, 28, 28) float32."""
    grid = hidden.view(-1, 1, GRID, GRID).float()
    return grid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def train(
    model: torch.nn.Module, pictures: torch.Tensor, average: torch.nn.Module, *, epochs: int, rate: float, size: int
) -> None:
    """AdamW, 5 % warm-up, a cosine to zero, and a moving average of the weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.95))
    steps = epochs * (len(pictures) // size)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    generator = torch.Generator().manual_seed(1)
    model.train()
    started, step = time.monotonic(), 0
    for epoch in range(epochs):
        for chosen in torch.randperm(len(pictures)).split(size):
            if len(chosen) < size:
                continue
            batch = pictures[chosen]
            batch = torch.where(torch.rand(size, 1, 1, 1) < 0.5, batch.flip(-1), batch).expand(-1, 3, -1, -1)
            hidden = masks(size, generator)
            made = model(pixel_values=batch, bool_masked_pos=hidden).reconstruction
            weight = by_pixel(hidden)
            loss = ((made - batch).square() * weight).sum() / weight.sum() / 3
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            with torch.no_grad():
                for mean, weights in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(weights, min(1.0, max(1e-3, 1 / step)))
            if step % 100 == 0:
                print(f"epoch {epoch + 1}, step {step}/{steps}, loss {loss.item():.4f}, "
                      f"{time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
        if epoch % 2:
            print(f"epoch {epoch + 1}: {quality(average, pictures[:500]):.2f} dB", flush=True)


@torch.inference_mode()
def quality(model: torch.nn.Module, pictures: torch.Tensor) -> float:
    """PSNR in dB over the hidden pixels of all pictures, half of their patches hidden at random."""
    generator = torch.Generator().manual_seed(0)
    error = count = 0.0
    for part in pictures.split(500):
        hidden = torch.rand(len(part), GRID * GRID, generator=generator).argsort(1).argsort(1) < int(
            RATIO * GRID * GRID
        )
        made = model(pixel_values=part.expand(-1, 3, -1, -1), bool_masked_pos=hidden).reconstruction.mean(1, True)
        levels = ((made * STD + MEAN).clamp(0, 1) - (part * STD + MEAN)) * by_pixel(hidden)
        error += float(levels.square().sum())
        count += float(by_pixel(hidden).sum())
    return float(-10 * np.log10(error / count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the IDX files are")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "inpaint")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    pictures = normalised(fashion_mnist(options.folder, "train")[0])
    tested = normalised(fashion_mnist(options.folder, "t10k")[0])[:2000]
    model = ViTForMaskedImageModeling.from_pretrained(options.start, dtype=torch.float32) if options.start else build()
    average = copy.deepcopy(model).eval()
    train(model, pictures, average, epochs=options.epochs, rate=options.rate, size=options.batch)
    average.half().save_pretrained(options.out)
    print(f"{quality(average.float(), tested):.2f} dB on the hidden pixels of {len(tested):,} test pictures")
    ViTImageProcessorPil(size={"height": 28, "width": 28}, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(
        options.out
    )


if __name__ == "__main__":
    main()
