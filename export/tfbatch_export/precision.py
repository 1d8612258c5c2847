"""A graph in float32 to one of 8-bit weights, for processors.

Weights of matrices are rounded to 8 bits in blocks of 128, each with a scale of its own; activations
are rounded as they come, also in blocks. So no calibration is needed, and no outlier of another
token or of another row of the batch costs precision: labels move far less than with one scale a
tensor, and not with the batch. `MatMulNBits` is read by onnxruntime and by OpenVINO.
"""

import logging
from pathlib import Path

import onnx
from tfbatch.errors import ExportNotVerified

BLOCK = 128  # weights along a column that share a scale
INT8_ACTIVATIONS = 4  # `accuracy_level` of the operator: 8-bit activations, 32-bit sums


def write_int8(source: Path, target: Path) -> int:
    """Make the graph of 8-bit weights of a fused one.

    Returns:
        How many products of matrices it has that are computed in 8 bits.

    Raises:
        ExportNotVerified: there is none to compute so.
    """
    logging.basicConfig(level=logging.WARNING)  # else the next line has every package log to standard error
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source),
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ACTIVATIONS,
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    model = quantizer.model.model
    onnx.save(model, target)
    count: int = sum(node.op_type == "MatMulNBits" for node in model.graph.node)
    if not count:
        raise ExportNotVerified("int8: the graph has no product with a matrix of weights")
    return count
