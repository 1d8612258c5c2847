"""What NVIDIA's driver says of its GPUs, asked without CUDA's own libraries.

Sources: the headers cuda.h and nvml.h, whose functions return zero where they succeed.
"""

import ctypes
import os
from dataclasses import dataclass

POSIX = os.name == "posix"
NAME = 96  # bytes that NVML asks for at least
PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for all contexts


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU; `memory` is all of its bytes."""

    name: str
    memory: int
    driver: str


class Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def driver_problem(index: int) -> str | None:
    """Why the driver shows no GPU of a number, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1" if POSIX else "nvcuda.dll")
    except OSError:
        return (
            "there is no NVIDIA driver on this machine; install one, or start the container with its GPUs (--gpus all)"
        )
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return "the NVIDIA driver does not answer; nvidia-smi may say why"
    if index >= count.value:
        return f"the driver shows {count.value} GPU(s), numbered from 0"
    return None


def allocate_pinned(size: int, index: int) -> ctypes.Array[ctypes.c_ubyte] | None:
    """Memory of the host that a GPU copies from directly, for as long as the process lives; None where the
    driver gives none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1" if POSIX else "nvcuda.dll")
    except OSError:
        return None
    device, context, address = ctypes.c_int(0), ctypes.c_void_p(), ctypes.c_void_p()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)  # the one that onnxruntime is in
        or driver.cuCtxSetCurrent(context)
        or driver.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), PORTABLE)
    )
    if failed or address.value is None:
        return None
    return (ctypes.c_ubyte * size).from_address(address.value)


def find_gpus() -> list[Gpu]:
    """The GPUs that the driver manages, as NVML numbers them; none where it does not answer."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1" if POSIX else "nvml.dll")
    except OSError:
        return []
    if library.nvmlInit_v2():
        return []
    try:
        count = ctypes.c_uint(0)
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return [read_gpu(library, index) for index in range(count.value)]
    finally:
        library.nvmlShutdown()


def read_gpu(library: ctypes.CDLL, index: int) -> Gpu:
    """One GPU, as far as the driver tells."""
    handle, memory = ctypes.c_void_p(), Memory()
    name, driver = ctypes.create_string_buffer(NAME), ctypes.create_string_buffer(NAME)
    library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    library.nvmlDeviceGetName(handle, name, NAME)
    library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    library.nvmlSystemGetDriverVersion(driver, NAME)
    return Gpu(name=name.value.decode(), memory=memory.total, driver=driver.value.decode())
