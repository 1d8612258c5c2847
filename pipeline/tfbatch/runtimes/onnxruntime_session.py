"""Sessions of onnxruntime: its providers, its threads, its way of running out of memory. What goes to a GPU and back
is in `bound_session.py`."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tfbatch.batches import Feeds, arrays
from tfbatch.bundles.mapped_weights import Unwritten, readable, without_weights
from tfbatch.errors import BadConfiguration, DeviceUnavailable, first_line
from tfbatch.host.machine import is_overflowing, processor_flags
from tfbatch.host.nvidia import driver_problem
from tfbatch.host.stop import Stop
from tfbatch.results import Floats
from tfbatch.session import PROVIDERS, Device, OutOfMemory

OUT_OF_MEMORY = re.compile(
    "AllocateRawInternal|Failed to allocate memory|CUDA (error|failure) 2\\b|CU(BLAS|DNN)_STATUS_\\w*ALLOC\\w*_FAILED|"
    "bad allocation|bad_alloc"
)
# What a GPU is for, besides all of com.microsoft's operators. The arithmetic of shapes onnxruntime itself
# leaves to the processor, on purpose; `session.disable_cpu_ep_fallback` would refuse that too, and so every graph.
WORK = {"Conv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "Softmax"}
CUDA_OPTIONS = {
    "use_tf32": 0,  # else products in fp32 would have ten bits
    "arena_extend_strategy": "kSameAsRequested",  # else memory grows by doubling
    "cudnn_conv_algo_search": "HEURISTIC",  # else every new shape is tried out with every algorithm
}


def cuda_problem(index: int) -> str | None:
    """All there is to mend before a GPU can be used, or None. Asks the driver: the provider list proves nothing."""
    has_provider = PROVIDERS["cuda"] in load_runtime().get_available_providers()
    missing = "this onnxruntime has no CUDA provider; pip install 'tfbatch[gpu]' in place of 'tfbatch[cpu]'"
    problems = [None if has_provider else missing, driver_problem(index)]
    return ". And ".join(filter(None, problems)) or None


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


def load_cuda_libraries(runtime: ModuleType) -> list[str]:
    """Load CUDA's and cuDNN's libraries, where pip has put them too; returns those that are missing,
    which onnxruntime prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runtime.preload_dlls()
    return re.findall(r"Failed to load (\S+?):", printed.getvalue())


def work_on_processor(session: Any, *, shapes_too: bool = False) -> list[str]:
    """The types of operators with work to do, or of all, that a session has placed on the processor; it must
    have recorded its placement."""
    processor = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == PROVIDERS["cpu"]]
    nodes = [node for part in processor for node in part.get_nodes()]
    working = [node for node in nodes if shapes_too or node.domain == "com.microsoft" or node.op_type in WORK]
    return sorted({node.op_type for node in working})


def open_graph(graph: Path | bytes, device: Device, name: str | None = None) -> Any:
    """Load a file, or the content of one of our own, which errors call by a name: onnxruntime's own session.

    Raises:
        BadConfiguration: it cannot be loaded, or was replaced since it was hashed.
        DeviceUnavailable: the device does not run, or would leave work to the processor.
    """
    name = name or str(graph)
    runtime = load_runtime()
    runtime.set_default_logger_severity(4)
    options = session_options(runtime, device)
    missing = load_cuda_libraries(runtime) if device.is_cuda else []
    # On a processor the kernel that adds and normalises in one is the slower one.
    kept_apart = [] if device.is_cuda else ["SkipLayerNormFusion"]
    try:
        with loaded_from(graph, options) as content:
            session = runtime.InferenceSession(
                content, options, providers=[provider_of(device)], enable_fallback=0, disabled_optimizers=kept_apart
            )
    except BadConfiguration:
        raise
    except Exception as error:  # onnxruntime's errors share no base but Exception
        if device.is_cuda:
            raise DeviceUnavailable(f"{device.name} was found, but does not run: {first_line(error)}") from error
        raise BadConfiguration(f"onnxruntime cannot load {name}: {first_line(error)}") from error
    if (used := session.get_providers()[0]) != device.provider:
        raise DeviceUnavailable(
            f"{device.name} was asked for, but onnxruntime fell back to {used}: "
            f"{', '.join(missing) or 'its CUDA or cuDNN libraries'} are missing or do not fit; "
            f"pip install 'tfbatch[gpu]' brings them"
        )
    if device.is_cuda and (left := work_on_processor(session, shapes_too=isinstance(graph, bytes))):
        raise DeviceUnavailable(
            f"{device.name} was asked for, but this onnxruntime would leave {', '.join(left)} of {name} to "
            f"the processor; use --device cpu, or another version of onnxruntime-gpu"
        )
    return session


def session_options(runtime: ModuleType, device: Device) -> Any:
    """One thread a caller, and no word."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it would keep a plan for every shape of batch
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if is_overflowing(processor_flags()):
        options.add_session_config_entry("session.x64quantprecision", "1")  # in more bits, which takes longer
    if device.is_cuda:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def provider_of(device: Device) -> object:
    """A device's provider, with its options."""
    if not device.is_cuda:
        return device.provider
    limit = {} if device.memory is None else {"gpu_mem_limit": device.memory}
    return device.provider, {"device_id": device.index, **limit, **CUDA_OPTIONS}


@contextlib.contextmanager
def loaded_from(graph: Path | bytes, options: Any) -> Iterator[bytes]:
    """What onnxruntime is given of a graph; it reads a file's weights within, which must be those that were hashed."""
    if isinstance(graph, bytes):
        yield graph
        return
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    with readable(graph):
        file = Unwritten(graph)
    yield without_weights(graph)
    file.check_place()


@contextlib.contextmanager
def told_apart(stop: Stop) -> Iterator[None]:
    """What onnxruntime raises while it computes as what it is: it has one class for all.

    Raises:
        TfbatchError: a stop was asked for.
        OutOfMemory: there was not enough.
    """
    try:
        yield
    except Exception as error:
        stop.check()
        if OUT_OF_MEMORY.search(str(error)):
            raise OutOfMemory from error
        raise


def run_options(stop: Stop) -> Any:
    """Options for all runs of a session that a stop ends at once."""
    options = load_runtime().RunOptions()

    def terminate() -> None:
        options.terminate = True

    stop.at_once(terminate)
    return options


class OnnxRuntimeSession:
    """A graph run by onnxruntime on a processor.

    Every caller's thread runs the graph by itself, one kernel thread each: batches go in parallel,
    kernels do not wait for one another, and a row's result does not depend on how many threads there
    are. A stop ends the batches under way.
    """

    def __init__(self, graph: Path, device: Device, stop: Stop, output: str | None = None) -> None:
        self._session = open_graph(graph, device)
        self._file = Unwritten(graph)
        self._output = output or self._session.get_outputs()[0].name
        self._options = run_options(stop)
        self._stop = stop

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`."""
        with told_apart(self._stop):
            outputs: Floats = self._session.run([self._output], arrays(feeds), self._options)[0]
        self._file.check()
        return outputs
