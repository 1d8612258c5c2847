"""PyTorch on a GPU, as well as it can be used: pinned memory, sdpa, half precision, `torch.compile`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tfbatch.batches import Feeds, Pictures

from benchmarks.gpu_models import Case

Pass = Callable[[], None]


def by_torch(case: Case, feeds: list[Feeds], device: str, *, compiled: bool) -> Pass:
    """All batches through PyTorch, from arrays to arrays: copied from pinned memory while others are computed."""
    model: Any = load_torch(case, device)
    if compiled:
        model = torch.compile(model)
    dtype = next(model.parameters()).dtype

    def compute() -> None:
        inputs = (tensors(batch, device, dtype) for batch in feeds)
        outputs = [model(**each).logits if case.is_text else case.family.reference(model, each) for each in inputs]
        for output in outputs:
            output.float().cpu().numpy()

    return torch.inference_mode()(compute)


def load_torch(case: Case, device: str) -> Any:
    dtype = torch.float32 if device == "cpu" else torch.float16
    sdpa = {"attn_implementation": "sdpa"} if case.family.attention else {}  # else the model has only its own
    model = case.model_class().from_pretrained(case.checkpoint, dtype=dtype, **sdpa)
    return model.eval().to(device)


def tensors(feeds: Feeds, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found = {}
    for name, values in feeds.items():
        if name == "attention_mask" and np.all(values):
            continue  # without a mask sdpa takes its fastest kernel
        if isinstance(values, Pictures):
            found[name] = normalise(values, device, dtype)
            continue
        tensor = torch.from_numpy(values)
        found[name] = sent(tensor.to(dtype) if tensor.is_floating_point() else tensor, device)
    return found


def normalise(pictures: Pictures, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Pictures sent as bytes and normalised where they are computed, (B, 3, H, W)."""
    pixels = sent(torch.from_numpy(np.stack(pictures.pixels)), device).permute(0, 3, 1, 2)
    darkest, brightest = (torch.from_numpy(pictures.levels[:, at, None, None]).to(device) for at in (0, 255))
    return (darkest + pixels * ((brightest - darkest) / 255)).to(dtype)


def sent(tensor: torch.Tensor, device: str) -> torch.Tensor:
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
