"""A graph on a GPU: while batches are computed, the next one is copied there, and the last one's results back.

Several threads call it, each with memory of its own that the GPU copies from directly. Batches are computed
beside one another: what one leaves idle between its kernels another takes. Where there is no room for that, a
batch is tried again with nothing beside it.

A shape that is new costs more than its computing: cuDNN compiles attention for it, 0.16 seconds on an H100, once
for each thread and one at a time. So a shape stays with one thread of `Lanes`, or two where it is often under way.
"""

from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from tfbatch.batches import Array, Feeds, Pictures
from tfbatch.bundles.tiny_graph import level_table
from tfbatch.host.nvidia import allocate_pinned
from tfbatch.host.stop import Stop
from tfbatch.results import Floats
from tfbatch.runtimes.onnxruntime_session import open_graph, run_options, told_apart
from tfbatch.session import GPU_CALLERS, Device, OutOfMemory, Reduction
from tfbatch.stages import Lanes

LANES = 8  # threads that batches are computed on
BESIDE = (
    2  # batches of one shape at once: they fill the gaps in one another's computing; with a third all took 1 % more
)
SHARE = 8  # of the memory a session may take one part of so many is for what is not the model
PIXELS, OUTPUTS, MADE = "pixels", "outputs", "made"  # of `level_table` and a `Reduction`


class Staging:
    """Memory of the host for the inputs of one batch, kept for the next one; it grows to the largest.

    A GPU copies from it directly where the driver pins it, which is no more than faster. Sizes are powers
    of two, so that what was outgrown, and stays pinned, is no more than what is used.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._held: dict[str, Array] = {}

    def hold(self, name: str, values: Array | Pictures) -> Array:
        """A copy of an input (B, ...), of pictures their bytes (B, H, W, 3), until the next one of that name."""
        shape = (len(values), *shape_of_row(values))
        if isinstance(values, Pictures):
            return np.stack(values.pixels, out=self._place(name, shape, np.dtype(np.uint8)))
        place = self._place(name, shape, values.dtype)
        np.copyto(place, values)
        return place

    def _place(self, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if name not in self._held or self._held[name].nbytes < size:
            self._held[name] = self._allocate(1 << (size - 1).bit_length())
        return self._held[name][:size].view(kind).reshape(shape)

    def _allocate(self, size: int) -> Array:
        pinned = allocate_pinned(size, self._device.index) if self._device.is_cuda else None
        return np.empty(size, np.uint8) if pinned is None else np.ctypeslib.as_array(pinned)


def shape_of_row(values: Array | Pictures) -> tuple[int, ...]:
    return values.shape[1:] if isinstance(values, np.ndarray) else values.pixels[0].shape


class BoundSession:
    """A graph run by onnxruntime where its inputs and results are bound to memory of the GPU.

    Where there is a `reduction`, what it reduces does not leave the GPU. A stop ends the batch under way.
    """

    def __init__(
        self, graph: Path, device: Device, stop: Stop, output: str | None = None, reduction: Reduction | None = None
    ) -> None:
        self._device = device.of_memory(1 / SHARE)  # for all but the model
        self._memory = "cuda" if device.is_cuda else "cpu"  # as onnxruntime calls it
        self._session = open_graph(graph, device.of_memory(1 - 1 / SHARE))
        self._output = output or self._session.get_outputs()[0].name
        self._options = run_options(stop)
        self._stop = stop
        self._reduction = reduction
        self._reduced = reduction and open_graph(reduction.graph(), self._device, "what reduces its outputs")
        self._tables: dict[bytes, Any] = {}
        self._opening, self._alone = Lock(), Lock()
        self._lanes = Lanes(LANES, BESIDE)
        self._places: SimpleQueue[Staging] = SimpleQueue()
        for _ in range(GPU_CALLERS):
            self._places.put(Staging(device))

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`."""
        place = self._places.get()
        try:
            return self._run(feeds, place)
        except OutOfMemory:
            pass  # and with it goes what it held
        finally:
            self._places.put(place)
        with self._alone:
            places = [self._places.get() for _ in range(GPU_CALLERS)]
            try:
                return self._run(feeds, places[0])
            finally:
                for place in places:
                    self._places.put(place)

    def _run(self, feeds: Feeds, place: Staging) -> Floats:
        with told_apart(self._stop):
            return self._compute(feeds, place)

    def _compute(self, feeds: Feeds, place: Staging) -> Floats:
        bound = self._bind(self._session, self._output)
        reduced = self._bind(self._reduced, MADE) if self._reduced else None
        shared = self._reduction.takes if self._reduction else ()
        pictures = {}
        for name, values in feeds.items():
            held = place.hold(name, values)
            if isinstance(values, Pictures):
                pictures[name] = self._bind(self._table(values.levels), MADE)
                pictures[name].take(PIXELS, held)
                continue
            bound.take(name, held)
            if reduced and name in shared:
                reduced.take(name, held)

        def compute() -> None:
            for name, pixels in pictures.items():
                bound.take(name, pixels.compute())
            found = bound.compute()
            if reduced:
                reduced.take(OUTPUTS, found)
                reduced.compute()

        self._lanes.do(tuple((len(values), *shape_of_row(values)) for values in feeds.values()), compute)
        return (reduced or bound).fetch()

    def _bind(self, graph: Any, output: str) -> "Binding":
        return Binding(graph, output, self._memory, self._device.index, self._options)

    def _table(self, levels: Floats) -> Any:
        key = levels.tobytes()
        with self._opening:
            if key not in self._tables:
                self._tables[key] = open_graph(level_table(levels), self._device, "the table of a byte's levels")
            return self._tables[key]


class Binding:
    """A graph with what it takes and gives bound to a device's memory, for one batch."""

    def __init__(self, graph: Any, output: str, memory: str, index: int, options: Any) -> None:
        self._graph = graph
        self._options = options
        self._binding = graph.io_binding()
        self._binding.bind_output(output, memory, index)

    def take(self, name: str, values: Any) -> None:
        """Take an array, which is copied to the device now, or what another graph has made there."""
        if isinstance(values, np.ndarray):
            self._binding.bind_cpu_input(name, values)
        else:
            self._binding.bind_ortvalue_input(name, values)

    def compute(self) -> Any:
        """What the graph makes, where it is."""
        self._graph.run_with_iobinding(self._binding, self._options)
        return self._binding.get_outputs()[0]

    def fetch(self) -> Floats:
        """What it has made, as an array."""
        outputs: Floats = self._binding.copy_outputs_to_cpu()[0]
        return outputs
