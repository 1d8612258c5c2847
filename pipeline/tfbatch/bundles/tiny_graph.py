"""Small graphs, written byte by byte: to try a device out, or to have it prepare what a model is fed and reduce
what it gives, needs neither a bundle nor the onnx package.

Source: protobuf's wire format; onnx.proto.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfbatch.bundles.protobuf import field

FLOAT, UINT8, INT32, INT64, FLOAT16 = 1, 2, 6, 7, 10  # TensorProto.DataType
KINDS = {"float32": FLOAT, "uint8": UINT8, "int32": INT32, "int64": INT64, "float16": FLOAT16}
INT, INTS = 2, 7  # AttributeProto.AttributeType
CHANNELS = ["red", "green", "blue"]
IR_VERSION, OPSET, MICROSOFT_OPSET = 8, 17, 1
MICROSOFT = "com.microsoft"

Array = npt.NDArray[np.generic]


def one_operator(operator: str, inputs: Mapping[str, Array], *, domain: str = "", **attributes: int) -> bytes:
    """An ONNX file: one node that takes arrays like these by name, and makes `made`, like the first one."""
    first = next(iter(inputs.values()))
    taken = [describe(name, array.dtype.name, array.shape) for name, array in inputs.items()]
    only = node(operator, list(inputs), ["made"], domain=domain, **attributes)
    return model(operator, [only], taken, describe("made", first.dtype.name, first.shape))


def level_table(levels: npt.NDArray[np.float32]) -> bytes:
    """An ONNX file that takes `pixels` (B, H, W, 3) uint8, and makes `made` (B, 3, H, W) float32 of them: each
    byte's entry in `levels` (3, 256), exactly."""
    nodes = [node("Split", ["pixels"], CHANNELS, axis=3)]  # a GPU takes half as long as to transpose bytes
    constants = [tensor("last", np.array([3], np.int64)), tensor("first", np.array([1], np.int64))]
    for channel, table in zip(CHANNELS, levels, strict=True):
        names = [f"{channel}_{what}" for what in ("flat", "plane", "entries", "levels", "made")]
        flat, plane, entries, table_name, made = names
        nodes += [
            node("Squeeze", [channel, "last"], [flat]),
            node("Unsqueeze", [flat, "first"], [plane]),
            node("Cast", [plane], [entries], to=INT32),
            node("Gather", [table_name, entries], [made], axis=0),
        ]
        constants.append(tensor(table_name, table))
    nodes.append(node("Concat", [f"{channel}_made" for channel in CHANNELS], ["made"], axis=1))
    taken = [describe("pixels", "uint8", ["B", "H", "W", 3])]
    return model("level_table", nodes, taken, describe("made", "float32", ["B", 3, "H", "W"]), constants)


def one_embedding(mode: str, *, is_normalised: bool, shortest: float) -> bytes:
    """An ONNX file that takes `outputs` (B, L, D) float32, for `mean` `attention_mask` (B, L) int64 too, and makes
    `made` (B, D) float32 of them: see `Pooling`."""
    first = [node("Gather", ["outputs", "zero"], ["pooled"], axis=1)]
    mean = [
        node("Cast", ["attention_mask"], ["real"], to=FLOAT),
        node("ReduceSum", ["real", "one"], ["count"]),
        node("Unsqueeze", ["real", "one"], ["row"]),
        node("MatMul", ["row", "outputs"], ["sums"]),
        node("Squeeze", ["sums", "one"], ["sum"]),
        node("Div", ["sum", "count"], ["pooled"]),
    ]
    unit = [
        node("ReduceL2", ["pooled"], ["length"], axes=[1]),
        node("Max", ["length", "shortest"], ["divisor"]),
        node("Div", ["pooled", "divisor"], ["made"]),
    ]
    nodes = first if mode == "cls" else mean
    nodes += unit if is_normalised else [node("Identity", ["pooled"], ["made"])]
    constants = [
        tensor("zero", np.array(0, np.int64)),
        tensor("one", np.array([1], np.int64)),
        tensor("shortest", np.array(shortest, np.float32)),
    ]
    taken = [describe("outputs", "float32", ["B", "L", "D"])]
    if mode != "cls":
        taken.append(describe("attention_mask", "int64", ["B", "L"]))
    return model("one_embedding", nodes, taken, describe("made", "float32", ["B", "D"]), constants)


def best_logits(count: int) -> bytes:
    """An ONNX file that takes `outputs` (B, C) float32, and makes `made` (B, 2 x count + 1) float32 of them: see
    `Top`."""
    nodes = [
        node("TopK", ["outputs", "count"], ["values", "places"], axis=1),
        node("Cast", ["places"], ["numbers"], to=FLOAT),
        # ReduceLogSumExp adds up one by one: of a vocabulary of 250,000 that was a thousandth off.
        node("ReduceMax", ["outputs"], ["largest"], axes=[1]),
        node("Sub", ["outputs", "largest"], ["lowered"]),
        node("Exp", ["lowered"], ["raised"]),
        node("ReduceSum", ["raised", "axis"], ["sum"]),
        node("Log", ["sum"], ["logarithm"]),
        node("Add", ["logarithm", "largest"], ["total"]),
        node("Concat", ["values", "numbers", "total"], ["made"], axis=1),
    ]
    constants = [tensor("count", np.array([count], np.int64)), tensor("axis", np.array([1], np.int64))]
    taken = [describe("outputs", "float32", ["B", "C"])]
    return model("best_logits", nodes, taken, describe("made", "float32", ["B", 2 * count + 1]), constants)


def model(name: str, nodes: list[bytes], taken: list[bytes], made: bytes, constants: Sequence[bytes] = ()) -> bytes:
    """A ModelProto."""
    graph = [*(field(1, each) for each in nodes), field(2, name), *(field(5, each) for each in constants)]
    graph += [*(field(11, each) for each in taken), field(12, made)]
    opsets = field(8, field(2, OPSET)) + field(8, field(1, MICROSOFT) + field(2, MICROSOFT_OPSET))
    return field(1, IR_VERSION) + field(7, b"".join(graph)) + opsets


def node(
    operator: str, inputs: list[str], made: list[str], *, domain: str = "", **attributes: int | list[int]
) -> bytes:
    """A NodeProto."""
    parts = [*(field(1, name) for name in inputs), *(field(2, name) for name in made)]
    parts += [field(4, operator), field(7, domain)]
    for name, value in attributes.items():
        content = (
            b"".join(field(8, number) for number in value) + field(20, INTS)
            if isinstance(value, list)
            else field(3, value) + field(20, INT)
        )
        parts.append(field(5, field(1, name) + content))
    return b"".join(parts)


def tensor(name: str, array: Array) -> bytes:
    """A TensorProto."""
    sides = b"".join(field(1, side) for side in array.shape)
    return sides + field(2, KINDS[array.dtype.name]) + field(8, name) + field(9, array.tobytes())


def describe(name: str, kind: str, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto; a side may have a name in place of a length."""
    sides = b"".join(field(1, field(2, side) if isinstance(side, str) else field(1, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, KINDS[kind]) + field(2, sides)))
