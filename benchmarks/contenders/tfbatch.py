"""The command `tfbatch run`, fp32: a whole process, resumable output and checks included."""

VENV = None
KINDS = ("text", "embedding", "image", "inpaint", "upscale")
PRECISION = "fp32"
ARGUMENTS = ()
