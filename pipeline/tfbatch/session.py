"""The one file that knows onnxruntime: devices, providers, threads, running out of memory."""

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tfbatch.batches import Feeds, Floats
from tfbatch.errors import BadConfiguration, DeviceUnavailable, UsageError, first_line
from tfbatch.stop import Stop

OUT_OF_MEMORY = re.compile(
    "AllocateRawInternal|Failed to allocate memory|CUDA error 2|CUBLAS_STATUS_ALLOC_FAILED|bad allocation|bad_alloc"
)


class OutOfMemory(Exception):
    """A batch does not fit the device's memory."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where the graph runs, and what suits it there.

    `batch_tokens` is the default budget of a batch, `length_multiple` what lengths are padded to a
    multiple of: small batches stay in a CPU's caches; a GPU wants large ones and few shapes, since
    its arena keeps what each new shape took.
    """

    name: str
    provider: str
    index: int = 0

    @property
    def is_cuda(self) -> bool:
        return self.provider == "CUDAExecutionProvider"

    @property
    def batch_tokens(self) -> int:
        return 32_768 if self.is_cuda else 512

    @property
    def length_multiple(self) -> int:
        return 8 if self.is_cuda else 1

    def precision(self, asked: str, available: list[str]) -> str:
        """The graph to use: as asked, or fp16 on CUDA where there is one, else fp32."""
        if asked != "auto":
            return asked
        return "fp16" if self.is_cuda and "fp16" in available else "fp32"


def find_device(asked: str) -> Device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a device, without making a session.

    Raises:
        UsageError: another word.
        DeviceUnavailable: CUDA was asked for and cannot be had.
    """
    match = re.fullmatch(r"(auto|cpu)|cuda(?::(\d+))?", asked)
    if not match:
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, not {asked}")
    problem = None if asked == "cpu" else cuda_problem(int(match[2] or 0))
    if asked == "cpu" or (asked == "auto" and problem):
        load_runtime()
        return Device(name="cpu", provider="CPUExecutionProvider")
    if problem:
        raise DeviceUnavailable(f"--device {asked}: {problem}. Use --device cpu to run on the processor.")
    index = int(match[2] or 0)
    return Device(name=f"cuda:{index}", provider="CUDAExecutionProvider", index=index)


def cuda_problem(index: int) -> str | None:
    """Why a GPU cannot be used, or None. Asks the driver: the provider list proves nothing."""
    if "CUDAExecutionProvider" not in load_runtime().get_available_providers():
        return "this onnxruntime has no CUDA provider; pip install 'tfbatch[gpu]' in place of 'tfbatch[cpu]'"
    try:
        driver = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return "there is no NVIDIA driver on this machine"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return "the NVIDIA driver does not answer"
    if index >= count.value:
        return f"the driver shows {count.value} GPU(s), numbered from 0"
    return None


def load_runtime() -> ModuleType:
    """onnxruntime, imported when first needed.

    It looks at the environment then: without the variable some builds keep what is run in a database
    below the home folder, and send it to their maker.

    Raises:
        DeviceUnavailable: neither of its packages is installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceUnavailable(
            "onnxruntime is not installed: pip install 'tfbatch[cpu]', or 'tfbatch[gpu]' for NVIDIA GPUs"
        ) from error
    module: ModuleType = onnxruntime
    return module


class Session:
    """A graph on a device.

    On a CPU every caller's thread runs the graph by itself, one kernel thread each: batches go in
    parallel, kernels do not wait for one another, and a row's result does not depend on how many
    threads there are. On CUDA there is one caller. A stop ends the batches under way.
    """

    def __init__(self, graph: Path, device: Device, stop: Stop | None = None) -> None:
        runtime = load_runtime()
        runtime.set_default_logger_severity(4)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it would keep a plan for every shape of batch
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[object] = [device.provider]
        if device.is_cuda:
            runtime.preload_dlls()
            providers = [(device.provider, {"device_id": device.index, "use_tf32": 0})]
        try:
            self._session = runtime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors share no base but Exception
            if device.is_cuda:
                raise DeviceUnavailable(f"{device.name} was found, but does not run: {first_line(error)}") from error
            raise BadConfiguration(f"onnxruntime cannot load {graph}: {first_line(error)}") from error
        if (used := self._session.get_providers()[0]) != device.provider:
            raise DeviceUnavailable(
                f"{device.name} was asked for, but onnxruntime fell back to {used}: its CUDA or cuDNN libraries "
                f"are missing or do not fit; pip install 'tfbatch[gpu]' brings them"
            )
        self._output = self._session.get_outputs()[0].name
        self._options = runtime.RunOptions()
        self._stop = stop or Stop()
        self._stop.at_once(self._terminate)

    def _terminate(self) -> None:
        self._options.terminate = True

    def run(self, feeds: Feeds) -> Floats:
        """Model outputs (B, ...) float32 for inputs of B rows.

        Raises:
            OutOfMemory: the batch is too large.
            TfbatchError: a stop was asked for.
        """
        try:
            outputs: Floats = self._session.run([self._output], feeds, self._options)[0]
        except Exception as error:  # onnxruntime has no class of its own for this
            self._stop.check()
            if OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory from error
            raise
        return outputs
