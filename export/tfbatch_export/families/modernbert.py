"""ModernBERT (Warner et al., 2024): rotary positions, and most layers see only a text's near parts."""

from typing import Any

import onnx_ir
from transformers import PreTrainedModel

from tfbatch_export.families._near import NEAR
from tfbatch_export.families._text import text_tasks


class Modernbert:
    """A layer is one MultiHeadAttention on rotated queries and keys, and a half that is gated.

    It is traced with its mask, which its attention takes as row lengths. GELU goes to the gate, whose
    product has no bias: there is no BiasGelu. The first layer has one LayerNormalization, as what is
    before it is normalised; one more ends the layers.
    """

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    attention: str | None = NEAR
    traces_mask = True

    def layers(self, config: Any) -> int:
        return int(config.num_hidden_layers)

    def expected(self, config: Any) -> dict[str, int]:
        layers = self.layers(config)
        return {
            "MultiHeadAttention": layers,
            "LayerNormalization": 2 * layers + 1,
            "Softmax": 0,
        }

    def longest(self, config: Any) -> int:
        return int(config.max_position_embeddings)

    def rewire(self, model: PreTrainedModel) -> PreTrainedModel:
        return model

    def complete(self, graph: onnx_ir.Model) -> None:
        """Nothing: the graph was traced with its mask."""


TASKS = text_tasks(Modernbert())
