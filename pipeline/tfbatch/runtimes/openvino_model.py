"""Reading a graph with OpenVINO, and changes to it before it is compiled."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

HEADS_FIRST = [0, 2, 1, 3]  # of (rows, tokens, heads, width)


def read_model(core: Any, content: bytes, graph: Path) -> Any:
    """A model whose weights are in memory, from where OpenVINO copies them once; of the file it makes three copies.

    The file is left to it where it would have none of that, which is nothing that it promises.
    """
    with suppress(RuntimeError):
        return core.read_model(io.BytesIO(content))
    return core.read_model(os.fspath(graph))


def leave_one_output(model: Any, name: str | None) -> None:
    """Take all outputs out of a model but one, the first where none is named: each would be computed and copied."""
    wanted = model.output(0) if name is None else model.output(name)
    for output, result in zip(model.outputs, model.get_results(), strict=True):
        if output != wanted:
            model.remove_result(result)


def add_biases_to_products(model: Any) -> None:
    """Add the biases of query, key and value to the products that these are, (rows, tokens, heads x width).

    OpenVINO takes `MultiHeadAttention` apart and adds them to (rows, heads, tokens, width). There they are steps of
    their own, and most transpositions are too, which else become part of its attention.
    """
    from openvino import opset1

    is_changed = False
    for add in model.get_ordered_ops():
        if add.get_type_name() == "Add" and (bias := bias_of_heads(add)) is not None:
            transposed = source(add)
            product = source(transposed).input(0)
            biased = opset1.add(product.get_source_output(), bias)
            product.replace_source_output(biased.output(0))
            for user in add.output(0).get_target_inputs():
                user.replace_source_output(transposed.output(0))
            is_changed = True
    if is_changed:
        model.validate_nodes_and_infer_types()


def bias_of_heads(add: Any) -> Any | None:
    """A constant of the bias (N,) that is added to a product (rows, tokens, N) once its heads are apart; None where
    another thing is added, or what it is added to is needed without it."""
    from openvino import op

    transposed, placed = source(add), source(add, 1)
    apart, split = source(transposed), source(placed)
    nodes = (transposed, apart, source(transposed, 1), placed, split, source(split))
    kinds = [node and node.get_type_name() for node in nodes]
    if kinds != ["Transpose", "Reshape", "Constant", "Reshape", "VariadicSplit", "Constant"]:
        return None
    if source(transposed, 1).data.tolist() != HEADS_FIRST or needed_without(add):
        return None
    biases, heads = source(split), apart.output(0).get_partial_shape()
    sizes = [output.get_partial_shape() for output in split.outputs()]
    if biases.get_element_type().get_type_name() not in ("f32", "f16") or len(biases.shape) != 1 or heads.rank != 4:
        return None
    if not all(size.is_static for size in sizes):
        return None
    ends = np.cumsum([size[0].get_length() for size in sizes])
    bias = np.split(biases.data, ends[:-1])[placed.input(0).get_source_output().get_index()]
    product = apart.input(0).get_source_output().get_partial_shape()
    shape = placed.output(0).get_partial_shape()
    is_of_heads = shape.is_static and list(shape) == [1, heads[2], 1, heads[3]]
    return op.Constant(bias) if is_of_heads and product.rank == 3 and product[2] == bias.size else None


def needed_without(add: Any) -> bool:
    """Whether another needs more than the shape of what an addition adds to, or of that before its heads were first."""
    transposed = source(add)
    ports = [*transposed.output(0).get_target_inputs(), *source(transposed).output(0).get_target_inputs()]
    users = [port.get_node() for port in ports]
    return any(user not in (add, transposed) and user.get_type_name() != "ShapeOf" for user in users)


def source(node: Any, place: int = 0) -> Any:
    """What gives a node its first input, or the one at `place`; None where it has none."""
    inputs = [] if node is None else node.inputs()
    return inputs[place].get_source_output().get_node() if place < len(inputs) else None
