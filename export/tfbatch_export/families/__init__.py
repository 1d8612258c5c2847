"""Model families. One file a family, named as `model_type` in a checkpoint's config.json is.

`families/bert.py` serves `"model_type": "bert"` and ends in `TASKS`, which has an object for each
task that the family does.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import onnx_ir
import torch
from tfbatch.errors import UsageError
from transformers import PreTrainedModel

Tensors = dict[str, torch.Tensor]
Axes = dict[str, dict[int, str]]


class Family(Protocol):
    """What export must know of one kind of model for one task.

    `inputs` names the finished graph's inputs, as the Hub's models name their arguments, and
    `output` what comes out, with `further_outputs` that other loaders ask for; `attention` is the
    implementation that is traced, None where the model has only its own; `hub_class` the Auto class
    to load with where the task's is not it; `unused` how the names of weights begin that the task does
    without; `is_inferred` whether a checkpoint of the task's class is taken to be for it when no task
    is named.
    """

    inputs: tuple[str, ...]
    output: str
    further_outputs: tuple[str, ...]
    attention: str | None
    hub_class: str | None
    unused: tuple[str, ...]
    is_inferred: bool

    def layers(self, config: Any) -> int:
        """How many attention layers the model has."""

    def expected(self, config: Any) -> dict[str, int]:
        """Operators by type that the fused graph must have at least; zero where none may be left."""

    def labels(self, config: Any) -> list[str]:
        """What the classes of the output mean, in their order; empty where it has none that are named."""

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        """The model as a function from named inputs to `output`, and to those further ones if there are any."""

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        """An example of the inputs that are traced, and the names of their dynamic axes."""

    def complete(self, graph: onnx_ir.Model) -> None:
        """What is left to do once a graph is fused."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """Write the preprocessor's files into a folder; returns the settings for the run stage."""

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        """What PyTorch makes of the graph's inputs, by the model's own `forward`."""

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Inputs, by name of their shape, on which graph and model are compared."""


@runtime_checkable
class Pooled(Protocol):
    """A family whose embedding an export may have in more than one way."""

    def pooled(self, mode: str | None, *, is_normalised: bool) -> Family:
        """The family with `cls` or `mean`, None for its own default, and to length one or not.

        Raises:
            UsageError: its models cannot be pooled so.
        """


@runtime_checkable
class HasSides(Protocol):
    """A family whose models are run as more than one graph.

    `sides` are the others by name, each a family of the same loaded model: what one puts out is an
    input of the main graph, made once for all rows.
    """

    sides: Mapping[str, Family]


def sides_of(family: Family) -> Mapping[str, Family]:
    """The families of a family's side graphs."""
    return family.sides if isinstance(family, HasSides) else {}


def family_names() -> list[str]:
    """The families there are, in order of name."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def tasks_of(model_type: str) -> dict[str, Family]:
    """What a `model_type` can be exported for, importing its file alone.

    Raises:
        UsageError: there is no such family.
    """
    name = model_type.replace("-", "_")
    if name not in family_names():
        raise UsageError(f"models of type {model_type} cannot be exported yet; there are: {', '.join(family_names())}")
    tasks: dict[str, Family] = import_module(f"{__name__}.{name}").TASKS
    return tasks


def load_family(model_type: str, task: str) -> Family:
    """A family's object for a task.

    Raises:
        UsageError: there is no such family, or it does not do this.
    """
    tasks = tasks_of(model_type)
    if task not in tasks:
        raise UsageError(f"models of type {model_type} are exported for {', '.join(tasks)}, not for {task}")
    return tasks[task]
