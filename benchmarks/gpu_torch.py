"""PyTorch on a GPU, as well as it can be used: pinned memory, sdpa, half precision, `torch.compile`."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tfbatch.batches import Feeds, Pictures

from benchmarks.gpu_models import Case

Flow = Callable[[int], None]  # all batches, so many times, one after another
AHEAD = 4  # batches that a GPU has yet to compute


def by_torch(case: Case, feeds: list[Feeds], device: str, *, compiled: bool) -> Flow:
    """All batches through PyTorch, to arrays, from memory that is pinned already: what it takes to put them there is
    not counted. Results are copied back while later batches are computed."""
    model: Any = load_torch(case, device)
    if compiled:
        compile_layers(model)
    dtype = next(model.parameters()).dtype
    batches = [pinned(batch, device) for batch in feeds]

    def flow(rounds: int) -> None:
        under_way: deque[Callable[[], npt.NDArray[Any]]] = deque()
        for batch in batches * rounds:
            inputs = tensors(batch, device, dtype)
            output = model(**inputs).logits if case.is_text else case.family.reference(model, inputs)
            under_way.append(fetched(output.float()))
            if len(under_way) > AHEAD:
                under_way.popleft()()
        for ready in under_way:
            ready()

    return torch.inference_mode()(flow)


def fetched(output: torch.Tensor) -> Callable[[], npt.NDArray[Any]]:
    """Begin to copy an output back; what is given waits for it."""
    if output.device.type == "cpu":
        return output.numpy
    host = torch.empty(output.shape, pin_memory=True)
    host.copy_(output, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> npt.NDArray[Any]:
        copied.synchronize()
        return host.numpy()

    return wait


def load_torch(case: Case, device: str) -> Any:
    dtype = torch.float32 if device == "cpu" else torch.float16
    sdpa = {"attn_implementation": "sdpa"} if case.family.attention else {}  # else the model has only its own
    model = case.model_class().from_pretrained(case.checkpoint, dtype=dtype, **sdpa)
    return model.eval().to(device)


def compile_layers(model: Any, *, dynamic: bool | None = None) -> None:
    """Compile every layer by itself. The model as a whole is slower: while it is traced transformers makes a mask where
    none is needed, with which attention is computed by plain products in float32."""
    for module in list(model.modules()):
        if isinstance(module, torch.nn.ModuleList):
            for layer in module:
                layer.compile(dynamic=dynamic)


def pinned(feeds: Feeds, device: str) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Inputs where a GPU copies from directly, of pictures their bytes and levels; no mask that hides nothing, without
    which attention has its fastest kernel."""
    found = {}
    for name, values in feeds.items():
        if name == "attention_mask" and np.all(values):
            continue
        is_pictures = isinstance(values, Pictures)
        tensor = torch.from_numpy(np.stack(values.pixels) if is_pictures else values)
        levels = torch.from_numpy(values.levels).to(device) if is_pictures else None
        found[name] = (tensor if device == "cpu" else tensor.pin_memory()), levels
    return found


def tensors(
    batch: dict[str, tuple[torch.Tensor, torch.Tensor | None]], device: str, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """A batch sent to the device; pictures are normalised there, (B, 3, H, W)."""
    found = {}
    for name, (tensor, levels) in batch.items():
        sent = tensor.to(device, non_blocking=True)
        if levels is not None:
            darkest, brightest = (levels[:, at, None, None] for at in (0, 255))
            sent = darkest + sent.permute(0, 3, 1, 2) * ((brightest - darkest) / 255)
        found[name] = sent.to(dtype) if sent.is_floating_point() else sent
    return found


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
