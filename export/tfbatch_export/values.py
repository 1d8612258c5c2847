"""Values of a graph: its constants, read and added."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def is_weights(value: ir.Value | None) -> bool:
    """Whether a value is one of the graph's own."""
    return value is not None and value.is_initializer()


def add_constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """An array in a graph: the constant of that name that holds it already, else a new one, whose name is as near
    to it as is free."""
    while (there := graph.initializers.get(name)) is not None:
        assert there.const_value is not None
        held = there.const_value.numpy()
        if held.dtype == array.dtype and np.array_equal(held, array):
            return there
        name += "_"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value
