"""Models whose positions are made for the size of picture they are given, such as DINOv2's and DINOv3's."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.preprocessor import find_settings, read_preprocessor, seen_size


class ResizableImages:
    """Pictures of the size that the checkpoint's image processor gives, whatever the model was trained at."""

    def side(self, config: Any) -> int:
        """By the folder that the configuration came from; its own where that has no image processor."""
        folder = Path(config.name_or_path)
        if not config.name_or_path or find_settings(folder) is None:
            return int(config.image_size)
        return int(seen_size(read_preprocessor(folder)).get("height", config.image_size))


def place_patches(model: PreTrainedModel, side: int) -> PreTrainedModel:
    """A copy of a model whose table of positions is that for pictures of one side, interpolated by PyTorch
    as the model itself does.

    Left to the graph, each batch would do it again, by another implementation.
    """
    placed = copy.deepcopy(model)
    embeddings: Any = placed.base_model.embeddings
    tokens = (side // embeddings.patch_size) ** 2 + 1
    with torch.no_grad():
        positions = embeddings.interpolate_pos_encoding(
            torch.empty(1, tokens, embeddings.position_embeddings.shape[2]), side, side
        )
    embeddings.position_embeddings = torch.nn.Parameter(positions)
    return placed
