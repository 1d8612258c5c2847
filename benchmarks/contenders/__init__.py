"""The contenders, one file each: a file without a leading `_` is one, and its name is its name.

VENV       the environment it runs in: requirements/<VENV>.txt
KINDS      the kinds of workload that it serves
PRECISION  fp32 must give tfbatch's results; of others the agreement is reported
load(model, threads) -> a function: rows of the input to columns of the output, by name
prepare(model, threads)     optional: converts the weights once into model.prepared, outside the clock
run(model, workload, input, output, threads) -> when the model was loaded (time.time())
                            instead of load: reads and writes Parquet itself
ARGUMENTS  instead of load: options of `tfbatch run`
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
