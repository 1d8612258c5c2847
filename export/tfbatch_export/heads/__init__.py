"""What a text model is asked for. One file a task, named as the task is, with - as _.

`heads/text_classification.py` serves `text-classification` and ends in `HEAD`. A family has all of
them that its kind of model has a class for: `TASKS = text_tasks(ItsModel())`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from transformers import PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._encoder import class_names


class Head(Protocol):
    """The part of a text model that belongs to a task.

    `output` names what comes out, `further_outputs` what else `trace` gives; `hub_class` is the Auto
    class to load with where the task's own is not it; `unused` how the names of weights begin that the
    task does without; `is_inferred` whether a checkpoint of the class is taken to be for this task when
    none is named; `reads_mask` whether the mask is for more than attention; `more_inputs` the graph's
    inputs besides the model's own, with their axes.
    """

    output: str
    further_outputs: tuple[str, ...]
    hub_class: str | None
    unused: tuple[str, ...]
    is_inferred: bool
    reads_mask: bool
    more_inputs: Axes

    def compute(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        """What comes out, for the model's own arguments (B, L) and all else that the graph is given:
        `more_inputs`, and with `reads_mask` `attention_mask`. While a graph is traced the model itself
        is given no mask."""

    def labels(self, config: Any) -> list[str]:
        """What the classes of the output mean, in their order; empty where it has none that are named."""

    def trace(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> tuple[torch.Tensor, ...]:
        """The same, and the further outputs."""

    def reference(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        """The same by the model's own `forward`."""

    def examples(self, ids: torch.Tensor, mask: torch.Tensor, config: Any) -> Tensors:
        """`more_inputs` for token ids and a mask (B, L)."""

    def settings(self, checkpoint: Path, config: Any) -> dict[str, Any]:
        """What the run stage must know."""


class LogitsHead:
    """One of transformers' own heads, whose logits come out as they are."""

    output = "logits"
    further_outputs: tuple[str, ...] = ()
    hub_class: str | None = None
    unused: tuple[str, ...] = ()
    is_inferred = True
    reads_mask = False
    more_inputs: ClassVar[Axes] = {}

    def compute(self, model: PreTrainedModel, inputs: Tensors, _: Tensors) -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def trace(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> tuple[torch.Tensor, ...]:
        return (self.compute(model, inputs, more),)

    def reference(self, model: PreTrainedModel, inputs: Tensors, more: Tensors) -> torch.Tensor:
        return self.compute(model, inputs, more)

    def labels(self, config: Any) -> list[str]:
        """The names that the checkpoint's configuration gives."""
        return class_names(config)

    def examples(self, _: torch.Tensor, mask: torch.Tensor, __: Any) -> Tensors:  # noqa: ARG002 -- as others name it
        return {}

    def settings(self, _: Path, __: Any) -> dict[str, Any]:
        return {}


def head_names() -> list[str]:
    """The tasks that text models have heads for, in order of name."""
    return sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("[!_]*.py"))


def load_head(task: str) -> Head:
    """The head for a task, importing its file alone."""
    head: Head = import_module(f"{__name__}.{task.replace('-', '_')}").HEAD
    return head
