"""Checkpoints of the families that look at pictures, a few layers of random weights, and what the Hub makes of them."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from transformers import AutoModel, pipeline
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

LABELS = {index: f"label {index}" for index in range(5)}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "initializer_range": 0.3}
SQUARE = PLAIN | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
WINDOWS = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "image_size": 32, "patch_size": 2,
           "window_size": 4, "initializer_range": 0.3}  # fmt: skip
ANY_SIZE = PLAIN | {"image_size": 56, "patch_size": 14}  # trained at 56 pixels, looks at 42
CROPPED = {"size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42}}


@dataclass(frozen=True)
class Kind:
    """A family: its classes' common name, a configuration and the image processor of its checkpoints."""

    classes: str
    config: dict[str, Any]
    processor: Any
    sizes: dict[str, Any] = field(default_factory=lambda: {"size": {"height": 32, "width": 32}})
    attention: str = "Attention"
    layers: int = 3


KINDS = {
    "beit": Kind("Beit", SQUARE | {"use_relative_position_bias": True}, BeitImageProcessorPil),
    "deit": Kind(
        "DeiT", SQUARE, DeiTImageProcessorPil,
        {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}},
    ),
    "dinov2": Kind("Dinov2", ANY_SIZE, BitImageProcessorPil, CROPPED),
    "dinov2_with_registers": Kind("Dinov2WithRegisters", ANY_SIZE, BitImageProcessorPil, CROPPED),
    "dinov3_vit": Kind("DINOv3ViT", SQUARE | {"num_register_tokens": 4}, None, attention="MultiHeadAttention"),
    "swin": Kind("Swin", WINDOWS, ViTImageProcessorPil, attention="MultiHeadAttention", layers=4),
    "vit": Kind("ViT", SQUARE, ViTImageProcessorPil),
}  # fmt: skip
HEADS = {"image-classification": "ForImageClassification", "image-feature-extraction": "Model"}
PAIRS = [
    (name, task) for name in KINDS for task in HEADS if (name, task) != ("dinov3_vit", "image-classification")
]  # fmt: skip
DINOV3_PROCESSOR = """{"crop_size": null, "do_center_crop": null, "do_normalize": true, "do_rescale": true,
    "do_resize": true, "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "DINOv3ViTImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 0.00392156862745098,
    "size": {"height": 32, "width": 32}}"""  # as the Hub has it, but for the size


def make_checkpoint(name: str, task: str, folder: Path, **more: Any) -> Path:
    """A model whose weights are all random, also those that begin as zeros or ones."""
    kind = KINDS[name]
    torch.manual_seed(1)
    config = getattr(transformers, kind.classes + "Config")(**kind.config | {"id2label": LABELS} | more)
    model = getattr(transformers, kind.classes + HEADS[task])(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.min() == weight.max():
                weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)
    if kind.processor is None:
        (folder / "preprocessor_config.json").write_text(DINOV3_PROCESSOR)
    else:
        kind.processor(**kind.sizes).save_pretrained(folder)
    return folder


def hub_pipeline(task: str, checkpoint: Path) -> Any:
    """The Hub's pipeline of a task, with Pillow's image processor."""
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    return pipeline(task, model=str(checkpoint), image_processor=processor, device="cpu", dtype="float32")


@torch.inference_mode()
def states_of(name: str, checkpoint: Path, pictures: list[bytes]) -> list[torch.Tensor]:
    """The last states (tokens, D) of each picture."""
    opened = [Image.open(io.BytesIO(picture)) for picture in pictures]
    if KINDS[name].processor is not None:
        extract = hub_pipeline("image-feature-extraction", checkpoint)
        return [extract(picture, return_tensors=True)[0] for picture in opened]
    model = AutoModel.from_pretrained(checkpoint).eval()
    return [model(pixel_values=dinov3_pixels(picture)).last_hidden_state[0] for picture in opened]


def dinov3_pixels(picture: Image.Image) -> torch.Tensor:
    """What DINOv3's processor makes of a picture (1, 3, 32, 32): transformers has it for torchvision alone,
    which leaves floats to this very function of PyTorch's."""
    pixels = torch.from_numpy(np.array(ImageOps.exif_transpose(picture).convert("RGB"))).permute(2, 0, 1) / 255
    resized = torch.nn.functional.interpolate(pixels[None], (32, 32), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (resized - mean) / std


def pool(name: str, states: torch.Tensor, mode: str, leading: int) -> torch.Tensor:
    """States (tokens, D) to an embedding (D,) by hand."""
    return states[0] if mode == "cls" else states[leading:].mean(0)
