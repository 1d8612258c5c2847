"""OpenVINO by hand: throughput hint, asynchronous requests, batches sorted by length."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.workloads import Model

BUDGET = 512  # tokens of a batch


def compile_model(graph: Path, threads: int, precision: str) -> Any:
    import openvino
    import openvino.properties as properties
    from openvino.properties import hint

    config = {
        hint.performance_mode: hint.PerformanceMode.THROUGHPUT,
        hint.inference_precision: getattr(openvino.Type, precision),
        properties.inference_num_threads: threads,
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(graph), "CPU", config)


def load_pictures(graph: Path, model: Model, threads: int, precision: str) -> Score:
    """A thread prepares a batch and waits for it; a request each, for as many streams as there are."""
    from benchmarks.contenders._pictures import classifier

    compiled = compile_model(graph, threads, precision)

    def logits(pictures: np.ndarray) -> np.ndarray:
        return compiled.create_infer_request().infer({"pixel_values": pictures})[0]

    return classifier(model, threads, logits)


def load_text(graph: Path, model: Model, threads: int, precision: str) -> Score:
    import openvino

    from benchmarks.contenders._text import encode, load_tokenizer, pad, scored, sorted_batches

    compiled = compile_model(graph, threads, precision)
    tokenizer = load_tokenizer(model)
    inputs = [next(iter(port.names)) for port in compiled.inputs]

    def score(rows: pa.Table) -> Columns:
        ids = encode(tokenizer, rows)
        outputs: list[tuple[np.ndarray, np.ndarray]] = []
        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(lambda request, batch: outputs.append((batch, request.get_output_tensor(0).data.copy())))
        for batch in sorted_batches(ids, BUDGET):
            feeds = pad([ids[row] for row in batch])
            queue.start_async({name: feeds[name] for name in inputs}, batch)
        queue.wait_all()
        return scored(model, ids, iter(outputs))

    return score
