"""A graph as OpenVINO reads it, and what is better otherwise before it is compiled."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tfbatch.batches import Floats

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
    their own, and its attention does not read query, key and value as the products left them.
    """
    from openvino import opset1

    for add in model.get_ordered_ops():
        if add.get_type_name() == "Add" and (bias := bias_of_heads(add)) is not None:
            transposed = source(add)
            product = source(transposed).input(0)
            sums = opset1.add(product.get_source_output(), opset1.constant(bias))
            product.replace_source_output(sums.output(0))
            for user in add.output(0).get_target_inputs():
                user.replace_source_output(transposed.output(0))
    model.validate_nodes_and_infer_types()


def bias_of_heads(add: Any) -> Floats | None:
    """The bias (N,) that is added to a product (rows, tokens, N) once its heads are apart; None where another thing
    is added, or what it is added to is needed without it."""
    transposed, placed = source(add), source(add, 1)
    split, part = source(transposed), source(placed)
    kinds = [node and node.get_type_name() for node in (transposed, split, placed, part, source(part))]
    if kinds != ["Transpose", "Reshape", "Reshape", "VariadicSplit", "Constant"]:
        return None
    if source(transposed, 1).data.tolist() != HEADS_FIRST or needed_without(add):
        return None
    shape, heads = (node.output(0).get_partial_shape() for node in (placed, split))
    sizes = [output.get_partial_shape() for output in part.outputs()]
    if not (shape.is_static and heads.rank == 4 and all(size.is_static for size in sizes)):
        return None
    ends = np.cumsum([size[0].get_length() for size in sizes])
    bias: Floats = np.split(source(part).data, ends[:-1])[placed.input(0).get_source_output().get_index()]
    product = split.input(0).get_source_output().get_partial_shape()
    is_of_heads = list(shape) == [1, heads[2], 1, heads[3]] and product.rank == 3 and product[2] == bias.size
    return bias if is_of_heads else None


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
