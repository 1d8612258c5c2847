"""ALBERT (Lan et al., 2019): BERT whose layers share their weights."""

from typing import Any

import onnx_ir
from onnx_ir.passes.common import DeduplicateInitializersPass

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._text import AbsolutePositions, text_tasks


class Albert(Encoder, AbsolutePositions):
    """A group of layers is run through several times. Embeddings are narrower than the layers."""

    def layers(self, config: Any) -> int:
        return int(config.num_hidden_layers * config.inner_group_num)

    def complete(self, graph: onnx_ir.Model) -> None:
        """Fusion gives each Attention its own copy of the weights that it joins; one is enough."""
        super().complete(graph)
        DeduplicateInitializersPass(size_limit=1 << 40)(graph)


TASKS = text_tasks(Albert())
