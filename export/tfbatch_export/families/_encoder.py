"""What the fused graph of a plain transformer encoder is made of."""

from typing import Any

from tfbatch.errors import BadConfiguration


class Encoder:
    """Layers of self-attention and a feed-forward half, each with a normalisation and a residual.

    A fused layer is one Attention, two LayerNormalization and, with GELU, one BiasGelu. One more
    LayerNormalization is BERT's embeddings', or ViT's last. Softmax stands for attention that was
    not fused.
    """

    def layers(self, config: Any) -> int:
        return int(config.num_hidden_layers)

    def activation(self, config: Any) -> str:
        """What is between the two products of the feed-forward half."""
        return str(config.hidden_act)

    def expected(self, config: Any) -> dict[str, int]:
        layers = self.layers(config)
        return {
            "Attention": layers,
            **({"BiasGelu": layers} if self.activation(config) == "gelu" else {}),  # a head may have one of its own
            "LayerNormalization": 2 * layers + 1,
            "Softmax": 0,
        }


def class_names(config: Any) -> list[str]:
    """The names that a checkpoint's configuration gives to the classes of its logits, in their order.

    Raises:
        BadConfiguration: some have none.
    """
    names = config.id2label or {}
    if sorted(names) != list(range(len(names))) or None in names.values():
        raise BadConfiguration(f"config.json does not name each of the classes from 0 on (id2label): {names}")
    return [str(names[index]) for index in range(len(names))]
