"""DINOv2 with registers (Darcet et al., 2023): tokens between the class token and the patches that take
what is not theirs to keep."""

from tfbatch_export.families.dinov2 import Dinov2, EmbeddingDinov2

TASKS = {"image-classification": Dinov2(), "image-feature-extraction": EmbeddingDinov2()}
