"""The contenders, one file each: a file without a leading `_` is one, and its name is its name.

VENV is the environment it runs in, requirements/<VENV>.txt; KINDS are the kinds of workload that it
serves; of PRECISION fp32 is held to tfbatch's results, of others the agreement is reported.

`load(model, threads)` returns a function: rows of the input to the output's new columns, by name.
`prepare(model, threads)`, where there is one, converts the weights once into `model.prepared`,
outside the clock; PREPARED names another contender, or a file that is none, whose conversion is loaded, NEEDS one
whose conversion its own begins with.
In place of `load`, `run(model, workload, input, output, threads)` reads and writes Parquet itself
and returns when the model was loaded, as `time.time()`; and ARGUMENTS are options of `tfbatch run`.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

Columns = dict[str, Any]
Score = Callable[[pa.Table], Columns]


def names() -> list[str]:
    """Every contender, tfbatch first."""
    files = [file.stem for file in Path(__file__).parent.glob("[a-z]*.py")]
    return sorted((name.replace("_", "-") for name in files), key=lambda name: (name != "tfbatch", name))


def load_contender(name: str) -> ModuleType:
    """The file of a contender; it imports its library only when it is used."""
    return import_module(f"benchmarks.contenders.{name.replace('-', '_')}")
