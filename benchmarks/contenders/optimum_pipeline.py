"""Optimum's onnxruntime models in a transformers pipeline, `batch_size=32`; exported and optimized
(O2) by optimum itself, in the versions that it pins.
"""

from benchmarks.contenders import Score
from benchmarks.contenders.transformers_pipeline import BATCH, score_pictures, score_texts
from benchmarks.workloads import Model

VENV = "optimum"
KINDS = ("text", "image")
PRECISION = "fp32"
TASKS = {"text": "text-classification", "image": "image-classification"}


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    from optimum.exporters.onnx import main_export

    main_export(str(model.checkpoint), output=model.prepared, task=TASKS[model.kind], optimize="O2", dtype="fp32")


def load(model: Model, threads: int) -> Score:
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForImageClassification, ORTModelForSequenceClassification
    from optimum.pipelines import pipeline

    options = SessionOptions()
    options.intra_op_num_threads = threads
    kind = ORTModelForSequenceClassification if model.kind == "text" else ORTModelForImageClassification
    network = kind.from_pretrained(model.prepared, session_options=options)
    pipe = pipeline(TASKS[model.kind], model=network, accelerator="ort", batch_size=BATCH, **processor(model))
    return score_texts(pipe) if model.kind == "text" else score_pictures(pipe)


def processor(model: Model) -> dict[str, object]:
    """What turns rows into model inputs, of the checkpoint."""
    from transformers import AutoImageProcessor, AutoTokenizer

    if model.kind == "text":
        return {"tokenizer": AutoTokenizer.from_pretrained(model.checkpoint)}
    return {"image_processor": AutoImageProcessor.from_pretrained(model.checkpoint)}
