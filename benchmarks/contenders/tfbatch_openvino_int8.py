"""`tfbatch run --device openvino --precision int8`."""

VENV = None
KINDS = ("text", "embedding", "image")
PRECISION = "int8"
ARGUMENTS = ("--device", "openvino", "--precision", "int8")
SWITCHED_ON = False
