"""ViT (Dosovitskiy et al., 2020): normalisation before each half of a layer."""

from tfbatch_export.families._encoder import Encoder
from tfbatch_export.families._image import ImageFamily


class Vit(Encoder, ImageFamily):
    """Square patches behind one class token."""


FAMILY = Vit()
