"""What a checkpoint does to pictures before its model sees them, held to what the run stage does."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tfbatch.bundles.json_files import read_object
from tfbatch.errors import BadConfiguration
from tfbatch.pictures.images import to_pixels, to_rgb
from tfbatch.pictures.pixels import UNROUNDED, ImageProcessor
from tfbatch.pictures.views import render
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

FILE = "preprocessor_config.json"
WHOLE = "processor_config.json"  # which has an image processor within, or nothing of pictures
PROCESSED = {
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb",
    "do_reduce_labels",  # of maps of segments, BEiT's; pictures have none
}  # fmt: skip
SIZES = ((61, 40), (45, 97), (640, 480))  # width, height of pictures that are compared
NEAR = 1e-3  # of normalised pixels; one grey level of 256 is ten times as much
MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
UNROUNDED_DEFAULTS = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "size": {"height": 224, "width": 224},
    "resample": 2, "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def read_preprocessor(checkpoint: Path) -> dict[str, Any]:
    """How a checkpoint has pictures prepared, as today's image processors save it.

    Raises:
        BadConfiguration: it has none, or one that works with torchvision alone and is not known here.
    """
    content = find_settings(checkpoint)
    if content is None:
        raise BadConfiguration(f"{checkpoint} has no {FILE}: how pictures are prepared is unknown")
    name = str(content.get("image_processor_type")).removesuffix("Fast")
    if name in UNROUNDED:
        given = {key: value for key, value in content.items() if value is not None}
        return spelled_out(checkpoint, UNROUNDED_DEFAULTS | given | {"image_processor_type": name})
    return spelled_out(checkpoint, json.loads(load_processor(checkpoint, name).to_json_string()))


def spelled_out(checkpoint: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as run reads them, of what transformers takes as shorter or by name too.

    Raises:
        BadConfiguration: a way to resize that Pillow has not.
    """
    found = dict(settings)
    for name in ("size", "crop_size"):
        if isinstance(side := found.get(name), int):
            found[name] = {"height": side, "width": side}
        elif side is not None and not isinstance(side, dict):
            raise BadConfiguration(
                f"{checkpoint}: the image processor has {name} {side}; what is known is height and width"
            )
    for name in ("image_mean", "image_std"):
        if isinstance(level := found.get(name), float | int):
            found[name] = [level] * 3
    try:
        resample = found.get("resample")
        if resample is not None:
            named = isinstance(resample, str)
            found["resample"] = int(Image.Resampling[resample.upper()] if named else Image.Resampling(resample))
    except (KeyError, ValueError):
        raise BadConfiguration(
            f"{checkpoint}: the image processor resizes by {resample}, which Pillow has not"
        ) from None
    return found


def find_settings(checkpoint: Path) -> dict[str, Any] | None:
    """A checkpoint's settings of pictures as they were saved: where there is a processor of texts and pictures,
    inside its own. None where there are none."""
    whole = read_object(checkpoint / WHOLE) if (checkpoint / WHOLE).is_file() else {}
    if isinstance(part := whole.get("image_processor"), dict):
        return part
    return read_object(checkpoint / FILE) if (checkpoint / FILE).is_file() else None


def load_processor(checkpoint: Path, name: str) -> Any:
    """The Hub's image processor of a checkpoint, which works with Pillow."""
    try:
        processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", trust_remote_code=False)
    except (ImportError, ValueError):  # as where it wants torchvision
        processor = None
    if processor is None or getattr(processor, "backend", "pil") != "pil":
        raise BadConfiguration(
            f"{checkpoint}: transformers has no image processor {name} that works with Pillow; "
            f"torchvision's give other pixels than run"
        )
    return processor


def copy_preprocessor(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Write what `read_preprocessor` gives; returns it."""
    settings = read_preprocessor(checkpoint)
    (folder / FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return settings


def steps(settings: dict[str, Any]) -> list[str]:
    """What an image processor does."""
    return [name for name, value in settings.items() if name.startswith("do_") and value]


def seen_size(settings: dict[str, Any]) -> dict[str, int]:
    """What an image processor makes of every picture: `height` and `width`, or else what it says."""
    size: dict[str, int] = settings.get("crop_size" if settings.get("do_center_crop") else "size") or {}
    return size


def check_steps(checkpoint: Path, settings: dict[str, Any], side: int, *, keeps_shape: bool) -> None:
    """Hold an image processor to a resize, with or without a central crop, to the side of a model's pictures.

    Raises:
        BadConfiguration: it does something else; by its shorter edge it may resize where `keeps_shape`.
    """
    square = {"height": side, "width": side}
    unknown = [name for name in steps(settings) if name not in PROCESSED]
    resized = settings.get("size") or {}
    is_rounded = settings["image_processor_type"] not in UNROUNDED
    if not (is_rounded or keeps_shape):
        unknown.append("no rounding")  # as tasks need that paste pixels
    by_edge = keeps_shape and settings.get("do_center_crop") and is_rounded
    kinds = [square.keys(), {"shortest_edge"}] if by_edge else [square.keys()]
    fits = resized.keys() in kinds and min(resized.values()) >= side and seen_size(settings) == square
    if unknown or not settings.get("do_resize") or not fits:
        raise BadConfiguration(
            f"{checkpoint}: the image processor gives {seen_size(settings)}, resized to {resized}, "
            f"and does {', '.join(unknown) or 'nothing else'}; what can be run is a resize, plain or with a central "
            f"crop{', then also by the shorter edge,' if keeps_shape else ''} to the model's {side} x {side}"
        )


def check_pixels(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Compare the run stage's pixels with the Hub's, on random pictures.

    Raises:
        BadConfiguration: they are others.
    """
    name, ours = settings["image_processor_type"], ImageProcessor(settings, is_exact=True)
    theirs = None if name in UNROUNDED else load_processor(checkpoint, name)
    random = np.random.default_rng(0)
    for width, height in SIZES:
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        encoded = io.BytesIO()
        picture.save(encoded, "PNG", transparency=picture.getpixel((width // 2, height // 2)))
        given = load_image(Image.open(encoded))  # as the Hub's pipelines give it to a processor
        made = theirs(given, return_tensors="np")["pixel_values"][0] if theirs else unrounded(given, settings)
        seen = render(encoded.getvalue(), ours.view)
        found = ours.normalise([to_pixels(seen) if seen.mode == "RGB" else np.asarray(seen)])[0]
        if made.shape != found.shape or np.abs(made - found).max() > NEAR:
            raise BadConfiguration(f"{checkpoint}: {name} gives other pixels than can be run")


def unrounded(picture: Image.Image, settings: dict[str, Any]) -> npt.NDArray[np.float32]:
    """What processors of UNROUNDED make of a picture by torchvision, which leaves it to PyTorch, (3, H, W)."""
    picture = to_rgb(picture, on_white=bool(settings.get("do_convert_rgb")))
    pixels = torch.from_numpy(to_pixels(picture)).permute(2, 0, 1) * (
        settings["rescale_factor"] if settings["do_rescale"] else 1.0
    )
    size = settings["size"]["height"], settings["size"]["width"]
    if (mode := MODES.get(settings["resample"])) is None:
        kind = Image.Resampling(settings["resample"]).name.lower()
        raise BadConfiguration(
            f"{settings['image_processor_type']} resizes by {kind}; what is known is {', '.join(MODES.values())}"
        )
    resized = torch.nn.functional.interpolate(pixels[None], size, mode=mode, align_corners=False, antialias=True)[0]
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    normalised: npt.NDArray[np.float32] = ((resized - mean) / std if settings["do_normalize"] else resized).numpy()
    return normalised
