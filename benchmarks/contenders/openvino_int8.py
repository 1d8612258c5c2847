"""OpenVINO with weights and activations in int8, quantized after training by NNCF for a transformer; what stays
floating point is in bf16, as is its default on processors that have it.
"""

import pyarrow.parquet as pq

from benchmarks.contenders import Score
from benchmarks.contenders._openvino import load_text
from benchmarks.workloads import ROOT, Model

VENV = "openvino"
NEEDS = "_openvino_model"
KINDS = ("text",)
PRECISION = "int8"
CALIBRATION = 300  # rows: NNCF's own default


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    import nncf
    import openvino

    from benchmarks.contenders._text import encode, load_tokenizer, pad

    rows = pq.read_table(ROOT / "build" / "data" / "reviews.parquet", columns=["text"]).slice(0, CALIBRATION)
    ids = encode(load_tokenizer(model), rows)
    graph = openvino.Core().read_model(model.prepared_by(NEEDS) / "model.xml")
    inputs = [port.any_name for port in graph.inputs]

    def feeds(each: list[int]) -> dict[str, object]:
        padded = pad([each])
        return {name: padded[name] for name in inputs}

    quantized = nncf.quantize(
        graph, nncf.Dataset(ids, feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION
    )
    openvino.save_model(quantized, model.prepared / "model.xml", compress_to_fp16=False)


def load(model: Model, threads: int) -> Score:
    return load_text(model.prepared / "model.xml", model, threads, "bf16")
