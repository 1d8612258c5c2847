"""`tfbatch run --device openvino`."""

VENV = None
KINDS = ("text", "embedding", "image")
PRECISION = "fp32"
ARGUMENTS = ("--device", "openvino")
