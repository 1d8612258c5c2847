"""What runs a graph, whatever runtime that is: the device it is on, and what it can be asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tfbatch.batches import Feeds
from tfbatch.results import Floats

Runtime = Literal["cpu", "cuda", "openvino"]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "openvino": "OpenVINO"}
GPU_CALLERS = 5  # some batches are computed beside one another, some are on their way, one has kernels compiled


class OutOfMemory(Exception):
    """A batch does not fit the device's memory."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where graphs run: on the processor by onnxruntime or by OpenVINO, or on a GPU by onnxruntime.

    `batch_tokens` is the default budget of a batch, `length_multiple` what lengths are padded to a
    multiple of: small batches stay in a processor's caches; a GPU wants large ones and few shapes,
    since its arena keeps what each new shape took, and cuDNN compiles its attention for each.
    `window_scale` is how many times as many rows are gathered to find those of like length among:
    many large batches, or they would be half padding. `windows_ahead` windows are ready before they are asked for,
    and `batches_ahead` batches for each caller, which cost little besides the windows they are of: a GPU would be
    done with a few while the next window is read.
    `memory` bounds the arena, in bytes, where it is not None.
    """

    runtime: Runtime
    index: int = 0
    memory: int | None = None

    @property
    def name(self) -> str:
        return f"cuda:{self.index}" if self.is_cuda else self.runtime

    @property
    def provider(self) -> str:
        return PROVIDERS[self.runtime]

    @property
    def is_cuda(self) -> bool:
        return self.runtime == "cuda"

    def of_memory(self, share: float) -> "Device":
        """The same device with a share of the memory, where that is bounded."""
        return self if self.memory is None else replace(self, memory=int(share * self.memory))

    def callers(self, threads: int) -> int:
        """How many threads call a session at once, where a job has `threads`."""
        return GPU_CALLERS if self.is_cuda else threads

    @property
    def batch_tokens(self) -> int:
        return 32_768 if self.is_cuda else 512

    @property
    def length_multiple(self) -> int:
        return 8 if self.is_cuda else 1

    @property
    def window_scale(self) -> int:
        return 8 if self.is_cuda else 1

    @property
    def windows_ahead(self) -> int:
        return 2 if self.is_cuda else 1

    @property
    def batches_ahead(self) -> int:
        return 8 if self.is_cuda else 2

    def tokenizing(self, threads: int) -> int:
        """How many threads tokenize, where a job has `threads`: on a GPU's host a quarter is left to its callers,
        or it waits for them as they wait for a processor."""
        return threads - threads // 4 if self.is_cuda else threads


class Reduction(Protocol):
    """What little is made of outputs that are many times as large: states of all tokens to one embedding, all
    logits to the best. On a GPU a graph does it, so that no more comes back."""

    @property
    def takes(self) -> Sequence[str]:
        """The model's inputs that it needs besides."""

    def of(self, outputs: Floats, feeds: Feeds, /) -> Floats:
        """On the processor: outputs (B, ...) float32 to (B, R) float32."""

    def graph(self) -> bytes:
        """An ONNX file that does the same: it takes `outputs` and these inputs by name, and makes `made`."""


class Session(Protocol):
    """A graph on a device, ready to be called from several threads at once."""

    def run(self, feeds: Feeds) -> Floats:
        """Model outputs (B, ...) float32 for inputs of B rows. A view of one row would keep all of them from the
        runtime, whose memory they are: what is kept is copied.

        Raises:
            OutOfMemory: the batch is too large.
            TfbatchError: a stop was asked for.
        """
