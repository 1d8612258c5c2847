"""The file of an image processor, held to the steps that `pixels.py` takes."""

import re
from pathlib import Path
from typing import Any

from tfbatch.bundles.json_files import read_json
from tfbatch.errors import BadConfiguration

FILE = "preprocessor_config.json"
STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
KINDS = {"Beit", "Bit", "CLIP", "DeiT", "Siglip", "ViT"}  # those whose steps are these and no others
SUFFIX = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")
BY_EDGE = {"Bit", "CLIP"}  # those that may resize to a shorter edge, and then crop
OWN_DEFAULTS = {"resample": KINDS, "do_center_crop": {"Bit", "CLIP", "DeiT"}}  # for which kinds a file must say it
PATCH = 16  # pixels; for what is not made of patches, a guess at what a picture costs


def picture_settings(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What is to be known of a model of pictures of one size, whose processor's file is in its folder.

    Raises:
        BadConfiguration: pictures are prepared in a way that is not known.
    """
    if not (path / FILE).exists():
        raise BadConfiguration(f"{path} has no {FILE}: how pictures are prepared is unknown")
    processor = read_json(path / FILE)
    if problem := problem_of(processor, config.get("image_size")):
        raise BadConfiguration(
            f"{path}: {FILE} {problem}; what can be run is a plain resize to a height and width, with or without a "
            f"central crop, or one to a shorter edge with it, to the model's size"
        )
    if config.get("num_channels", 3) != 3:
        raise BadConfiguration(f"{path} reads {config['num_channels']} channels; pictures are given as RGB")
    height, width = size_of(processor, "crop_size" if processor.get("do_center_crop") else "size")
    patch = config.get("patch_size")
    patch = patch if isinstance(patch, int) else PATCH
    return {"tokens_per_image": (height // patch) * (width // patch) + 1}


def problem_of(processor: dict[str, Any], side: object) -> str | None:
    """What cannot be done as a processor has it, for a model of pictures of `side` pixels where that is a number."""
    kind = SUFFIX.sub("", str(processor.get("image_processor_type") or processor.get("feature_extractor_type")))
    steps = {name for name, value in processor.items() if name.startswith("do_") and value}
    resized = edge_of(processor) if kind in BY_EDGE else (0, 0)
    resized = resized if any(resized) else size_of(processor, "size")
    seen = size_of(processor, "crop_size") if processor.get("do_center_crop") else resized
    if kind not in KINDS:
        return f"is that of {kind}"
    if unsaid := [name for name in OWN_DEFAULTS if processor.get(name) is None and kind in OWN_DEFAULTS[name]]:
        return f"does not say {' and '.join(unsaid)}: put in what {kind}'s processor has by default"
    if unknown := sorted(steps - STEPS):
        return f"does {', '.join(unknown)}"
    if not processor.get("do_resize", True) or 0 in (*resized, *seen):
        return f"gives no fixed size (size {processor.get('size')})"
    if any(small > large for small, large in zip(seen, resized, strict=True)):
        return f"crops {seen} of {resized}"
    if isinstance(side, int) and seen != (side, side):
        return f"gives {seen[0]} x {seen[1]} pixels, the model takes {side} x {side}"
    if processor.get("do_normalize", True) and not all(
        is_of_channels(processor, n) for n in ("image_mean", "image_std")
    ):
        return "has no image_mean and image_std of three channels"
    return None


def edge_of(processor: dict[str, Any]) -> tuple[int, int]:
    """The least height and width that a picture is resized to by its shorter edge, to be cropped; else zeros."""
    match processor.get("size"):
        case {"shortest_edge": int(edge), **others} if edge > 0 and not others and processor.get("do_center_crop"):
            return edge, edge
        case _:
            return 0, 0


def size_of(processor: dict[str, Any], name: str) -> tuple[int, int]:
    """Height and width; zeros where it is another kind of size."""
    match processor.get(name):
        case {"height": int(height), "width": int(width)} if height > 0 and width > 0:
            return height, width
        case _:
            return 0, 0


def is_of_channels(processor: dict[str, Any], name: str) -> bool:
    """Whether a processor names a number for each channel."""
    values = processor.get(name)
    return isinstance(values, list) and len(values) == 3 and all(isinstance(value, float | int) for value in values)
