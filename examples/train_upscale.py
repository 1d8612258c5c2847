"""Train a small Swin2SR to double the size of photographs: the source of `models/upscale`.

`python examples/train_upscale.py FOLDER` reads GCompris' photographs (Debian's package
`gcompris-qt-data` puts them in /usr/share/gcompris-qt), trains a Swin2SR of 4 layers, 48 wide, and
writes a Hugging Face checkpoint (fp16) to `examples/upscale/`.

It starts as bicubic interpolation: the first convolution copies each pixel's 3 x 3 neighbours, the
last one weighs theirs, 5 x 5 in all, and what lies between starts from zero. What is learnt is the
difference.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from data import ROOT
from photographs import SCALE, held_out, luma_psnr, pair, training
from PIL import Image
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution, get_cosine_schedule_with_warmup
from transformers.models.swin2sr.image_processing_pil_swin2sr import Swin2SRImageProcessorPil

SIDE = 48  # of a small training picture


def build() -> Swin2SRForImageSuperResolution:
    model = Swin2SRForImageSuperResolution(
        Swin2SRConfig(
            image_size=64, embed_dim=48, depths=[2, 2], num_heads=[4, 4], window_size=8, mlp_ratio=2.0,
            upscale=SCALE, upsampler="pixelshuffledirect",
        )
    )  # fmt: skip
    start_as_bicubic(model)
    return model


@torch.no_grad()
def start_as_bicubic(model: Swin2SRForImageSuperResolution) -> None:
    """Set the first and the last convolution so that the model interpolates."""
    first, last = model.swin2sr.first_convolution, model.upsample.conv
    first.bias.zero_()
    for index in range(27):
        colour, place = divmod(index, 9)
        first.weight[index].zero_()
        first.weight[index, colour, place // 3, place % 3] = 1
    model.swin2sr.conv_after_body.weight.mul_(0.02)
    model.swin2sr.conv_after_body.bias.zero_()
    last.weight.zero_()
    last.bias.zero_()
    taps = cubic_taps()
    for phase in range(SCALE * SCALE):
        kernel = taps[phase // SCALE][:, None] * taps[phase % SCALE][None, :]  # 5 x 5
        for down in range(5):
            for right in range(5):
                outer = [min(max(place - 1, 0), 2) for place in (down, right)]
                inner = [down - outer[0], right - outer[1]]
                for colour in range(3):
                    channel = colour * 9 + inner[0] * 3 + inner[1]
                    last.weight[colour * SCALE**2 + phase, channel, outer[0], outer[1]] += kernel[down, right]


def cubic_taps() -> list[torch.Tensor]:
    """The weights of five pixels, two to each side, for the first and the second pixel in between."""
    distance = torch.tensor([1.75, 0.75, 0.25, 1.25])
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance < 1, near, far)
    return [torch.cat([weights, torch.zeros(1)]), torch.cat([torch.zeros(1), weights.flip(0)])]


def tensor(picture: Image.Image) -> torch.Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def crop(pair: tuple[torch.Tensor, torch.Tensor], random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random square of both, turned and mirrored in one of eight ways; flat ones less often."""
    small, whole = pair
    for _ in range(4):
        top, left = (int(random.integers(0, size - SIDE + 1)) for size in small.shape[1:])
        cut = small[:, top : top + SIDE, left : left + SIDE]
        if cut.float().std() > random.uniform(0, 50):
            break
    large = whole[:, SCALE * top : SCALE * (top + SIDE), SCALE * left : SCALE * (left + SIDE)]
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    both = [part.rot90(turns, (1, 2)).float() / 255 for part in (cut, large)]
    return tuple(part.flip(2) if mirrored else part for part in both)


def train(model: torch.nn.Module, average: torch.nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]], *,
          minutes: float, rate: float, size: int) -> None:  # fmt: skip
    """Adam on the absolute error for so many minutes: warm-up, then a cosine to zero by the clock."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))
    steps = 10_000
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 50, steps)
    random = np.random.default_rng(0)
    areas = np.array([pair[0].shape[1] * pair[0].shape[2] for pair in data], float)
    model.train()
    started, step, said = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        chosen = random.choice(len(data), size, p=areas / areas.sum())
        small, large = (
            torch.stack(part) for part in zip(*(crop(data[index], random) for index in chosen), strict=True)
        )
        loss = (model(pixel_values=small).reconstruction - large).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        schedule.last_epoch = int(share * steps) - 1
        schedule.step()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        with torch.no_grad():
            for mean, weights in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weights, min(1.0, max(2e-3, 1 / step)))
        if time.monotonic() - said > 120:
            said = time.monotonic()
            print(f"step {step}, {share:.0%}, loss {loss.item():.4f}, {table(average)[-1]}", flush=True)


def padded(pictures: torch.Tensor) -> torch.Tensor:
    """Mirrored at the bottom and at the right to whole windows, as the image processor does."""
    for axis in (2, 3):
        more = 8 - pictures.shape[axis] % 8
        pictures = torch.cat([pictures, pictures.flip(axis).narrow(axis, 0, more)], axis)
    return pictures


@torch.inference_mode()
def table(model: torch.nn.Module) -> list[str]:
    """PSNR in dB of bicubic interpolation and of the model on the held-out photographs, Y channel."""
    lines, gains = [], []
    for name, picture in held_out().items():
        small, whole = pair(picture)
        made = model(pixel_values=padded(tensor(small)[None].float() / 255)).reconstruction[0]
        levels = (made[:, : whole.height, : whole.width].clamp(0, 1) * 255).round().permute(1, 2, 0)
        cubic = luma_psnr(small.resize(whole.size, Image.Resampling.BICUBIC), whole)
        found = luma_psnr(levels.numpy(), whole)
        gains.append(found - cubic)
        lines.append(f"{name}: bicubic {cubic:.2f}, model {found:.2f} dB")
    return [*lines, f"mean gain {np.mean(gains):.2f} dB ({', '.join(f'{gain:.2f}' for gain in gains)})"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the .rcc files are")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "upscale")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    data = [(tensor(small), tensor(whole)) for small, whole in map(pair, training(options.folder))]
    model = (
        Swin2SRForImageSuperResolution.from_pretrained(options.start, dtype=torch.float32) if options.start else build()
    )
    average = copy.deepcopy(model).eval()
    print(f"{len(data)} photographs; to begin with: {table(average)[-1]}", flush=True)
    train(model, average, data, minutes=options.minutes, rate=options.rate, size=options.batch)
    average.half().save_pretrained(options.out)
    print("\n".join(table(average.float())))
    Swin2SRImageProcessorPil().save_pretrained(options.out)


if __name__ == "__main__":
    main()
