"""A PyTorch model to an ONNX graph, without its padding mask.

`transformers` builds a four-dimensional mask while it is traced, even of nothing; that shuts out
the fused kernels. The attention below computes what `sdpa` does and is given no mask: `rewrites/masks.py`
gives the fused operators the row lengths instead.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes.common import NameFixPass
from tfbatch.errors import BadConfiguration, TfbatchError, first_line
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

OPSET = 18
UNMASKED = "sdpa_unmasked"


def no_mask(*_: Any, **__: Any) -> None:
    """In place of the builder of masks."""


ALL_ATTENTION_FUNCTIONS.register(UNMASKED, sdpa_attention_forward)
ALL_MASK_ATTENTION_FUNCTIONS.register(UNMASKED, no_mask)


def dimension(name: str) -> Any:
    """A dynamic axis by its name, `batch`, or `8*rows` where it is always a multiple."""
    multiple, _, base = name.rpartition("*")
    return int(multiple) * torch.export.Dim(base) if multiple else torch.export.Dim(base)


@contextmanager
def by_pytorch(do: str) -> Iterator[None]:
    """Have what PyTorch or transformers cannot do with a model be an error of its configuration; they raise any kind.

    Raises:
        BadConfiguration: it cannot, with the reason.
    """
    try:
        yield
    except (MemoryError, TfbatchError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # the exporter's says where to go
        raise BadConfiguration(f"PyTorch cannot {do} this model as it is configured: {first_line(cause)}") from error


def trace(
    wrapper: torch.nn.Module,
    samples: dict[str, torch.Tensor],
    dynamic_axes: dict[str, dict[int, str]],
    outputs: Sequence[str],
) -> onnx_ir.Model:
    """Capture a module that takes `samples` by name and returns a tensor for each of `outputs`.

    The exporter restores the mode of the module it is given, so the wrapper is set to evaluation,
    not the model alone.
    """
    wrapper.eval()
    dimensions = {name: dimension(name) for axes in dynamic_axes.values() for name in axes.values()}
    shapes = {name: {axis: dimensions[label] for axis, label in axes.items()} for name, axes in dynamic_axes.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), by_pytorch("trace"):
        warnings.simplefilter("ignore")  # the exporter's, of its own parts
        program = torch.onnx.export(
            wrapper,
            (),
            kwargs=samples,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(samples),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model: onnx_ir.Model = program.model
    NameFixPass()(model)  # an operator's output may have the name that was asked for
    return model
