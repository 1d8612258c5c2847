"""Values of a graph: who reads them, and its constants, read and added."""

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


def is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT16


def width_of(value: ir.Value | None) -> int | None:
    """How many numbers weights of one dimension are; None of others."""
    shape = None if value is None or value.shape is None else value.shape
    return int(shape[0]) if shape is not None and len(shape) == 1 and isinstance(shape[0], int) else None


def numbers(value: ir.Value) -> npt.NDArray[np.float32]:
    """A constant in float32."""
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float32)


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value; None where others do too, or the graph gives it out."""
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def put_in_place(old: ir.Value, new: ir.Value) -> None:
    """Have what read a value read another one, which is the same."""
    new.type, new.shape = old.type, old.shape
    if old.is_graph_output():
        old.name, new.name = None, old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
