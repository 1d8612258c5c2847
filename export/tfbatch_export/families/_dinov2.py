"""What DINOv2 has in common with itself and four registers more."""

from typing import Any

from transformers import PreTrainedModel

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import FixedSizeImages
from tfbatch_export.families._resizable import ResizableImages, place_patches


class Dinov2Encoder(ResizableImages, Encoder, FixedSizeImages):
    """A ViT whose layers' halves are scaled by learnt factors, which hinders no fusion.

    SwiGLU, the giant model's feed-forward half, has no fused operator: it stays as it is.
    """

    def expected(self, config: Any) -> dict[str, int]:
        return super().expected(config) | ({"BiasGelu": 0} if config.use_swiglu_ffn else {})

    def leading_tokens(self, config: Any) -> int:
        return 1 + getattr(config, "num_register_tokens", 0)

    def traced(self, model: PreTrainedModel) -> PreTrainedModel:
        """With the positions for the pictures that it will see."""
        return place_patches(model, self.side(model.config))
