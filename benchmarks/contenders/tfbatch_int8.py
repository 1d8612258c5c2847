"""`tfbatch run --precision int8`."""

VENV = None
KINDS = ("text", "embedding", "image")
PRECISION = "int8"
ARGUMENTS = ("--precision", "int8")
SWITCHED_ON = False
