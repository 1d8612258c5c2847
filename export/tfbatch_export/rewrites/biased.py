"""A product of states with a matrix of weights, and its bias behind it."""

from typing import NamedTuple

import onnx_ir as ir

from tfbatch_export.rewrites.values import is_weights, only_user, width_of


class Biased(NamedTuple):
    """A product with a matrix of weights, the addition of its bias, and which input of that is the bias."""

    product: ir.Node
    addition: ir.Node
    place: int

    @property
    def bias(self) -> ir.Value:
        value = self.addition.inputs[self.place]
        assert value is not None
        return value


def biased(addition: ir.Node | None) -> Biased | None:
    """An addition of a bias to a product that nothing else reads; None where it is none."""
    if addition is None or addition.op_type != "Add":
        return None
    for place, value in enumerate(addition.inputs):
        other = addition.inputs[1 - place]
        product = None if other is None else other.producer()
        if not is_weights(value) or product is None or product.op_type != "MatMul":
            continue
        if width_of(value) and is_weights(product.inputs[1]) and only_user(product.outputs[0]) is addition:
            return Biased(product, addition, place)
    return None
