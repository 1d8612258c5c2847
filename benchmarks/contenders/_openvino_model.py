"""A checkpoint as OpenVINO's own conversion of a PyTorch model has it, in fp32, whatever precision it is kept in."""

import json

from benchmarks.contenders._torch import CLASSES
from benchmarks.workloads import Model

VENV = None


def prepare(model: Model, threads: int) -> None:  # noqa: ARG001 -- the same for all contenders
    import openvino
    import torch
    import transformers

    network = getattr(transformers, CLASSES[model.kind]).from_pretrained(model.checkpoint, attn_implementation="sdpa")
    if model.kind == "image":
        size = json.loads((model.checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))["size"]
        example = {"pixel_values": torch.zeros(2, 3, size["height"], size["width"])}
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model.checkpoint)
        example = dict(tokenizer(["a good film", "not a good film at all"], padding=True, return_tensors="pt"))
    converted = openvino.convert_model(network.float().eval(), example_input=example)
    openvino.save_model(converted, model.prepared / "model.xml", compress_to_fp16=False)
