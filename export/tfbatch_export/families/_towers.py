"""What models of two towers have in common: pictures and texts become embeddings in one space."""

from pathlib import Path
from typing import Any

import onnx_ir
import torch
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.tokenizer import read_tokenizer, write_tokenizer
from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._image import ImageClassifier
from tfbatch_export.families._text import AXES, BATCH_SIZES, TRACED
from tfbatch_export.trace import UNMASKED

ACTIVATIONS = {"gelu": "BiasGelu", "quick_gelu": "QuickGelu", "gelu_pytorch_tanh": "FastGelu"}


def fused_layers(tower: Any) -> dict[str, int]:
    """What the layers of a tower come to, of its configuration; one normalisation more ends it."""
    layers = tower.num_hidden_layers
    return {
        "Attention": layers,
        **({ACTIVATIONS[tower.hidden_act]: layers} if tower.hidden_act in ACTIVATIONS else {}),
        "LayerNormalization": 2 * layers + 1,
        "Softmax": 0,
    }


class Projected(torch.nn.Module):
    """A tower's pooled states, projected where the model does so."""

    def __init__(self, tower: torch.nn.Module, projection: torch.nn.Module | None) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection or torch.nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) float32 or tokens (B, L) int64 to embeddings (B, D) float32."""
        embedding: torch.Tensor = self.projection(self.tower(inputs).pooler_output)
        return embedding


class OfPictures(torch.nn.Module):
    """Embeddings of pictures."""

    def __init__(self, tower: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, D), both float32."""
        embedding: torch.Tensor = self.tower(pixel_values)
        return embedding


class PictureTower(ImageClassifier):
    """The embedding of a picture as the Hub's `get_image_features` gives it, not brought to length one."""

    output = "embedding"
    hub_class: str | None = "AutoModel"

    def layers(self, config: Any) -> int:
        return int(config.vision_config.num_hidden_layers)

    def expected(self, config: Any) -> dict[str, int]:
        return fused_layers(config.vision_config)

    def labels(self, config: Any) -> list[str]:  # noqa: ARG002
        """None of the model's own."""
        return []

    def seeing(self, model: Any) -> torch.nn.Module:
        """The tower that sees pictures, as it is captured."""
        tower: torch.nn.Module = model.vision_model
        return tower

    def tower(self, model: PreTrainedModel) -> torch.nn.Module:
        return Projected(self.seeing(model), getattr(model, "visual_projection", None))

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return OfPictures(self.tower(model))

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        return super().trace_inputs(config.vision_config)

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """As for other models of pictures, with the width of the embedding."""
        settings = super().write_preprocessor(checkpoint, config.vision_config, folder)
        return settings | {"embedding_width": self.width(config)}

    def width(self, config: Any) -> int:
        """Of the space that both towers share."""
        return int(config.projection_dim)

    def reference(self, model: Any, inputs: Tensors) -> torch.Tensor:
        embedding: torch.Tensor = model.get_image_features(**inputs).pooler_output
        return embedding

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        return super().parity_batches(config.vision_config)


class OfTexts(torch.nn.Module):
    """Embeddings of texts, padded in the graph to `length` tokens where the model was trained so."""

    def __init__(self, tower: torch.nn.Module, *, is_normalised: bool, length: int | None, pad: int) -> None:
        super().__init__()
        self.tower = tower
        self.is_normalised = is_normalised
        self.length, self.pad = length, pad

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 to (B, D) float32."""
        if self.length is not None:
            padding = input_ids.new_full((1, self.length), self.pad).expand(input_ids.shape[0], -1)
            input_ids = torch.cat((input_ids, padding), 1)[:, : self.length]
        embedding: torch.Tensor = self.tower(input_ids)
        return torch.nn.functional.normalize(embedding, dim=1) if self.is_normalised else embedding


class TextTower:
    """The embedding of a text: as the Hub's `get_text_features` gives it, or `text_embeds`, of length one.

    Neither model here needs a mask of its padding, so the graph has no such input.
    """

    inputs: tuple[str, ...] = ("input_ids",)
    further_outputs: tuple[str, ...] = ()
    attention: str | None = UNMASKED
    hub_class: str | None = "AutoModel"
    unused: tuple[str, ...] = ()
    is_inferred = True

    def __init__(self, *, is_side: bool = False) -> None:
        self.is_side = is_side
        self.output = "text_embeds" if is_side else "embedding"

    def layers(self, config: Any) -> int:
        return int(config.text_config.num_hidden_layers)

    def expected(self, config: Any) -> dict[str, int]:
        return fused_layers(config.text_config)

    def labels(self, config: Any) -> list[str]:  # noqa: ARG002
        """None of the model's own."""
        return []

    def width(self, config: Any) -> int:
        """Of the space that both towers share."""
        return int(config.projection_dim)

    def padded(self, model: PreTrainedModel) -> tuple[int | None, int]:  # noqa: ARG002
        """The number of tokens that every text is padded to, None for any, and what with."""
        return None, 0

    def wrap(self, model: Any) -> torch.nn.Module:
        length, pad = self.padded(model)
        tower = Projected(model.text_model, getattr(model, "text_projection", None))
        return OfTexts(tower, is_normalised=self.is_side, length=length, pad=pad)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        words = config.text_config
        ids = torch.randint(words.vocab_size, (2, min(TRACED, words.max_position_embeddings)))
        return {"input_ids": ids}, {"input_ids": AXES}

    def complete(self, graph: onnx_ir.Model) -> None:
        """Padding is not masked."""

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """The tokenizer, how long texts may be, and the width of the embedding."""
        words = config.text_config
        settings = write_tokenizer(checkpoint, self.read_tokenizer(checkpoint), words.vocab_size, folder)
        length = min(settings["max_length"], words.max_position_embeddings)
        return settings | {"max_length": length, "embedding_width": self.width(config)}

    def read_tokenizer(self, checkpoint: Path) -> Any:
        return read_tokenizer(checkpoint)

    def as_the_hub_has_them(self, model: PreTrainedModel, ids: torch.Tensor) -> Tensors:  # noqa: ARG002
        """What the Hub gives a model for tokens (B, L)."""
        return {"input_ids": ids}

    def reference(self, model: Any, inputs: Tensors) -> torch.Tensor:
        embedding = model.get_text_features(**self.as_the_hub_has_them(model, inputs["input_ids"])).pooler_output
        return torch.nn.functional.normalize(embedding, dim=1) if self.is_side else embedding

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random tokens in every size, of two, seventeen and the most tokens."""
        generator = torch.Generator().manual_seed(0)
        most = config.text_config.max_position_embeddings
        return {
            f"{size} x {length}{name}": {"input_ids": ids}
            for size in BATCH_SIZES
            for length in sorted({2, min(17, most), most})
            for name, ids in self.examples(config.text_config, size, length, generator).items()
        }

    def examples(self, config: Any, size: int, length: int, generator: torch.Generator) -> Tensors:
        """Tokens (size, length) by what is said of their padding."""
        return {"": torch.randint(config.vocab_size, (size, length), generator=generator)}
