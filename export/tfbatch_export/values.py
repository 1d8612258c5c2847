"""Values of a graph: its constants, read and added."""

from typing import Any

import numpy.typing as npt
import onnx_ir as ir


def is_weights(value: ir.Value | None) -> bool:
    """Whether a value is one of the graph's own."""
    return value is not None and value.is_initializer()


def add_constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """An array in a graph, under a name that is new to it."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value
