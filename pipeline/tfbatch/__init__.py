"""tfbatch: batch inference for transformers, from Parquet to Parquet, through ONNX Runtime.

This package is the run stage. It imports no torch, transformers, optimum or onnx.
"""

__version__ = "0.1.0"
