"""The workloads' Parquet files: `build/benchmarks/data/<workload>-<rows>.parquet`, made once."""

from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import pictures, texts
from benchmarks.workloads import HERE, Workload

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Workloads that score another one's rows.
TEXTS = {"base": "reviews", "embeddings": "reviews", "embeddings-mixed": "mixed"}
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
    """Pictures are written in row groups of so many: large ones do not fit memory together, and a footer of
    thousands of small groups takes tens of megabytes of whoever reads it. Their pages are of about a megabyte, as
    recent `datasets` writes them; a dictionary would be one page of all, which readers hold twice."""
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
    with pq.ParquetWriter(path, schema, use_dictionary=False, use_content_defined_chunking=True) as writer:
        group = 64 if workload.name == "photos12mp" else 1_000
        for first in range(0, rows, group):
            part = ids.slice(first, group)
            columns = {"id": part, "image": pa.array(islice(cells, len(part)), IMAGE)}
            if workload.kind == "inpaint":
                columns["mask"] = pa.array(islice(masks, len(part)), IMAGE)
            writer.write_table(pa.table(columns, schema))
