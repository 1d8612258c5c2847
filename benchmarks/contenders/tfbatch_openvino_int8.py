"""`tfbatch run --device openvino --precision int8`."""

VENV = None
KINDS = ("text",)
PRECISION = "int8"
ARGUMENTS = ("--device", "openvino", "--precision", "int8")
