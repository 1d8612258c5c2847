"""`tfbatch run --device openvino --precision bf16`."""

VENV = None
KINDS = ("text", "embedding", "image")
PRECISION = "bf16"
ARGUMENTS = ("--device", "openvino", "--precision", "bf16")
