"""How large the numbers in a graph become, and which of them half precision cannot hold."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from tfbatch.runtimes.device import find_device, open_session

from tfbatch_export.families import Tensors
from tfbatch_export.rewrites.values import add_constant

Sizes = npt.NDArray[np.float32]

LIMIT = 32_752  # half of the largest float16: other rows may have somewhat larger numbers than those looked at
HEAD = "largest"  # what the names of values begin with that are only looked at


def find_overflowing(typed: onnx.ModelProto, batches: Mapping[str, Tensors]) -> set[str]:
    """The names of nodes that read or make a number too large for half precision, in any of some batches.

    The graph must say of each value what type it has.
    """
    model = ir.from_proto(typed)
    nodes = list(model.graph)
    values = [value for node in nodes for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    too_large = {weight for weight in model.graph.initializers.values() if is_large(weight)}
    sizes = measure_largest(model, values, batches)
    too_large.update(value for value, size in zip(values, sizes, strict=True) if size > LIMIT)
    return {str(node.name) for node in nodes if too_large & {*node.inputs, *node.outputs}}


def is_large(weight: ir.Value) -> bool:
    tensor = weight.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not tensor.size:
        return False
    return bool(np.abs(tensor.numpy()).max() > LIMIT)


def measure_largest(model: ir.Model, values: list[ir.Value], batches: Mapping[str, Tensors]) -> Sizes:
    """The largest size of the numbers of each value over some batches; the model is left without its output."""
    largest = np.zeros(len(values), np.float32)
    watch(model.graph, values)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "watched.onnx"
        ir.save(model, path)
        session = open_session(path, find_device("cpu"))
        for batch in batches.values():
            found = session.run({name: tensor.numpy() for name, tensor in batch.items()})
            largest = np.maximum(largest, np.nan_to_num(found, nan=np.inf))
    return largest


def watch(graph: ir.Graph, values: list[ir.Value]) -> None:
    """Make the largest size of each value's numbers the one output of a graph; of an empty value it is zero."""
    flat, zero = (
        add_constant(graph, f"{HEAD}_flat", np.array([-1])),
        add_constant(graph, f"{HEAD}_zero", np.zeros(1, np.float32)),
    )
    nodes = [node for value in values for node in largest_of(value, flat, zero)]
    together = ir.node("Concat", [node.outputs[0] for node in nodes if node.op_type == "ReduceMax"], {"axis": 0})
    graph.extend([*nodes, together])
    output = together.outputs[0]
    output.name, output.dtype, output.shape = HEAD, ir.DataType.FLOAT, ir.Shape([len(values)])
    graph.outputs[:] = [output]


def largest_of(value: ir.Value, flat: ir.Value, zero: ir.Value) -> Iterator[ir.Node]:
    yield (reshaped := ir.node("Reshape", [value, flat]))
    yield (joined := ir.node("Concat", [zero, reshaped.outputs[0]], {"axis": 0}))
    yield (sizes := ir.node("Abs", [joined.outputs[0]]))
    yield ir.node("ReduceMax", [sizes.outputs[0]], {"keepdims": 1})
