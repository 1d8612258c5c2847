"""`tfbatch run --precision int8`."""

VENV = None
KINDS = ("text",)
PRECISION = "int8"
ARGUMENTS = ("--precision", "int8")
