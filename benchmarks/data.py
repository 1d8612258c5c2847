"""The workloads' Parquet files: `build/benchmarks/data/<workload>-<rows>.parquet`, made once."""

from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import pictures, texts
from benchmarks.workloads import HERE, Workload

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXTS = {"base": "reviews", "embeddings": "reviews"}  # workloads that score another one's rows
PICTURES = {"vitb": "photos500", "inpaint": "fashion"}


def input_of(workload: Workload, rows: int) -> Path:
    """The file of a workload, with so many rows."""
    path = HERE / "data" / f"{workload.name}-{rows}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        write(workload, rows, partial)
        partial.rename(path)
    return path


def write(workload: Workload, rows: int, path: Path) -> None:
    """Rows are written a few at a time: large pictures do not fit memory together."""
    ids = pa.array(range(rows), pa.int64())
    if workload.column == "text":
        source = getattr(texts, TEXTS.get(workload.name, workload.name))
        pq.write_table(pa.table({"id": ids, "text": texts.extended(source(), rows)}), path)
        return
    cells = getattr(pictures, PICTURES.get(workload.name, workload.name))()
    fields = [("id", pa.int64()), ("image", IMAGE)]
    if workload.kind == "inpaint":
        fields.append(("mask", IMAGE))
    schema, masks = pa.schema(fields), pictures.masks()
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, 64):
            part = ids.slice(first, 64)
            columns = {"id": part, "image": pa.array(islice(cells, len(part)), IMAGE)}
            if workload.kind == "inpaint":
                columns["mask"] = pa.array(islice(masks, len(part)), IMAGE)
            writer.write_table(pa.table(columns, schema))
