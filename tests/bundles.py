"""Bundles that are copied, laid out as other tools lay theirs out, or tampered with."""

import json
from pathlib import Path
from typing import Any

import onnx_ir


def copy_bundle(bundle: Path, to: Path) -> Path:
    to.mkdir()
    for file in bundle.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def change_json(file: Path, **changed: Any) -> None:
    """Put other values into a JSON file of names with values; make it where there is none."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changed))


def change_one_weight(graph: onnx_ir.Model) -> None:
    """Add 0.05 to one number of the matrix of the last product there is."""
    (node,) = [node for node in graph.graph if node.op_type == "MatMul"][-1:]
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[0, -1] += 0.05
    weight.const_value = onnx_ir.tensor(values, name=weight.name)


def lay_out(bundle: Path, folder: Path, graph: str = "model.onnx") -> Path:
    """A bundle's files without its manifest, the graph by another name."""
    (folder / graph).parent.mkdir(parents=True)
    for file in bundle.iterdir():
        if file.name != "tfbatch.json":
            (folder / (graph if file.name == "model.onnx" else file.name)).write_bytes(file.read_bytes())
    return folder
