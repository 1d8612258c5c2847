"""OpenVINO, a second runtime for processors. It has bfloat16, and is the faster one in 8 bits."""

import sys
from collections import deque
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from tfbatch.batches import Array, Feeds, arrays
from tfbatch.bundles.mapped_weights import mapped
from tfbatch.errors import BadConfiguration, DeviceUnavailable, first_line
from tfbatch.host.stop import Stop
from tfbatch.results import Floats
from tfbatch.runtimes.openvino_model import add_biases_to_products, leave_one_output, read_model
from tfbatch.session import OutOfMemory

Shapes = tuple[tuple[int, ...], ...]


def load_openvino() -> ModuleType:
    """OpenVINO, imported when first needed.

    Raises:
        DeviceUnavailable: it is not installed.
    """
    # Its import sends word of itself to its maker, from a forked process, and writes below the home folder;
    # without the first of these it does neither. The second converts other formats, and takes half of the import.
    for name in ("openvino_telemetry", "openvino.tools.ovc"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise DeviceUnavailable("OpenVINO is not installed: pip install 'tfbatch[openvino]'") from error
    module: ModuleType = openvino
    return module


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 (AVX512-BF16 or AMX)."""
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSession:
    """A graph run by OpenVINO on the processor, in one stream of one thread for each caller.

    `arithmetic` is the type that activations have, "f32" or "bf16"; it is never left to OpenVINO,
    which would take bf16 wherever there is some. A stop cancels the batches under way.
    """

    def __init__(self, graph: Path, arithmetic: str, threads: int, stop: Stop, output: str | None = None) -> None:
        core = load_openvino().Core()
        set_up_bindings()
        settings = {
            "INFERENCE_PRECISION_HINT": arithmetic,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,  # threads that prepare rows take turns with those that compute
            # How many activations share a scale where weights are in 8 bits: as many as of those, in our
            # bundles. Left alone it takes 32, and turns sums of 8-bit products into floats four times as often.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128,
        }
        try:
            content, self._weights = mapped(graph)
            model = read_model(core, content, graph)
            self._weights.check()
            self._weights.let_go()
            leave_one_output(model, output)
            add_biases_to_products(model)
            self._model = core.compile_model(model, "CPU", settings)
        except BadConfiguration:
            raise
        except Exception as error:  # OpenVINO's errors are RuntimeError and what its bindings make of others
            raise BadConfiguration(f"OpenVINO cannot load {graph}: {reason(error)}") from error
        self._of_shape: dict[Shapes, Lock] = {}
        self._known: set[Shapes] = set()
        self._idle: deque[Any] = deque()
        self._started: list[Any] = []
        self._stop = stop
        self._stop.at_once(self._cancel)

    def _cancel(self) -> None:
        for request in list(self._started):
            request.cancel()

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`. The first call of each shape goes alone among those of that shape: two that set it up
        at once were seen to give wrong numbers, at the model's full length, in two to four of a hundred processes."""
        inputs = arrays(feeds)
        shapes = tuple(array.shape for array in inputs.values())
        if shapes in self._known:
            return self._run(inputs)
        with self._of_shape.setdefault(shapes, Lock()):
            outputs = self._run(inputs)
            self._known.add(shapes)
        return outputs

    def _run(self, inputs: dict[str, Array]) -> Floats:
        self._stop.check()
        try:
            request = self._borrow()
            try:
                outputs: Floats = request.infer(inputs, share_inputs=True)[0]
            finally:
                self._idle.append(request)
        except Exception as error:  # see above
            self._stop.check()
            if "bad_alloc" in str(error) or "allocate" in str(error):
                raise OutOfMemory from error
            raise
        return outputs

    def _borrow(self) -> Any:
        try:
            return self._idle.popleft()
        except IndexError:
            request = self._model.create_infer_request()
            self._started.append(request)
            return request


def set_up_bindings() -> None:
    """Have OpenVINO's bindings set up what turns an array into a tensor, and back. Two threads that do so at once
    wait for one another for ever, one with Python's lock and one with that of a C++ static."""
    _ = load_openvino().Tensor(np.zeros(1, np.float32), shared_memory=True).data


def reason(error: Exception) -> str:
    """What is said last: the lines before it are OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)
