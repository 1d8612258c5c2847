"""One contender over one Parquet file, in its own environment and a fresh process.

`python -m benchmarks.runner CONTENDER WORKLOAD INPUT OUTPUT` ends in a JSON line: versions, the
seconds from the loaded model to the closed output, and the most memory held. `--prepare` converts
the model instead, once, outside the clock.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contenders import Score, load_contender
from benchmarks.memory import peak_memory
from benchmarks.workloads import BY_NAME, Model

ROWS_AT_A_TIME = {"text": 8_192, "embedding": 8_192, "image": 1_024, "inpaint": 1_024, "upscale": 64}
BYTES_AT_A_TIME = 256 << 20  # of a file: 12 megapixels are three megabytes
SHOWN = (
    "torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "optimum-intel", "openvino", "nncf", "ray",
    "sentence-transformers", "fastembed", "tokenizers",
)  # fmt: skip
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TYPES = {"generated_image": IMAGE, "embedding": pa.list_(pa.float32())}


def versions() -> dict[str, str]:
    """Of what is installed; one by one, since this is within what is measured, and to read all takes a tenth of a
    second."""
    found = {}
    for name in SHOWN:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def chunks(path: Path, rows: int) -> Iterator[pa.Table]:
    """A Parquet file some rows at a time, so many that threads wait little for one another at the end of them."""
    with pq.ParquetFile(path) as file:
        few = BYTES_AT_A_TIME * file.metadata.num_rows // path.stat().st_size
        for batch in file.iter_batches(max(1, min(rows, few))):
            yield pa.Table.from_batches([batch])


def write(score: Score, rows: Iterator[pa.Table], output: Path) -> None:
    """Score tables and write them, with their results as further columns."""
    writer = None
    for table in rows:
        scored = table
        for name, values in score(table).items():
            scored = scored.append_column(name, pa.array(values, TYPES.get(name)))
        writer = writer or pq.ParquetWriter(output, scored.schema)
        writer.write_table(scored)
    if writer:
        writer.close()


def prepare(contender: ModuleType, model: Model, threads: int) -> None:
    """Let a contender convert the weights, unless it has done so."""
    if not hasattr(contender, "prepare") or model.prepared.is_dir():
        return
    partial = model.prepared.with_name(f"{model.prepared.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    contender.prepare(replace(model, prepared=partial), threads)
    partial.rename(model.prepared)


def main() -> None:
    """Run, and say what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("workload")
    parser.add_argument("input", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true")
    asked = parser.parse_args()
    contender, workload = load_contender(asked.contender), BY_NAME[asked.workload]
    shared = getattr(contender, "PREPARED", asked.contender)  # some load what another converts
    model = replace(workload.model, prepared=workload.model.prepared_by(shared))
    if asked.prepare:
        prepare(contender, model, asked.threads)
        return
    if hasattr(contender, "run"):
        loaded = contender.run(model, workload, asked.input, asked.output, asked.threads)
        seconds = time.time() - loaded
    else:
        score = contender.load(model, asked.threads)
        started = time.perf_counter()
        write(score, chunks(asked.input, ROWS_AT_A_TIME[workload.kind]), asked.output)
        seconds = time.perf_counter() - started
    result = {"seconds": round(seconds, 3), "peak_memory_bytes": peak_memory(), "versions": versions()}
    print(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
