"""What text encoders have in common: token ids in, right-padded, logits out."""

import tempfile
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from tfbatch.errors import BadConfiguration
from transformers import AutoTokenizer, PreTrainedModel

from tfbatch_export.families import Axes, Tensors
from tfbatch_export.families._encoder import class_names
from tfbatch_export.fuse import mask_by_row_lengths
from tfbatch_export.trace import UNMASKED

BATCH_SIZES = (1, 2, 7)
LENGTHS = (2, 17, 128, 512)
VOCABULARIES = ("tokenizer.json", "vocab.txt")  # without one transformers makes up a tokenizer of five tokens
AXES = {0: "batch", 1: "sequence"}


class TextWrapper(torch.nn.Module):
    """Logits of a text model, traced without a padding mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 twice to logits (B, labels) float32."""
        logits: torch.Tensor = self.model(input_ids=input_ids, token_type_ids=token_type_ids).logits
        return logits


class TextFamily:
    """A text encoder with absolute positions and token types."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    output = "logits"
    attention: str | None = UNMASKED
    hub_class: str | None = None
    unused: tuple[str, ...] = ()

    def labels(self, config: Any) -> list[str]:
        """Of what has logits only."""
        return class_names(config) if self.output == "logits" else []

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return TextWrapper(model)

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        ids = torch.randint(config.vocab_size, (2, 16))
        return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}, {"input_ids": AXES, "token_type_ids": AXES}

    def complete(self, graph: onnx_ir.Model) -> None:
        mask_by_row_lengths(graph)

    def read_tokenizer(self, checkpoint: Path) -> Any:
        return AutoTokenizer.from_pretrained(checkpoint)

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """`tokenizer.json` and `tokenizer_config.json`, made where the checkpoint has a vocabulary alone."""
        if not any((checkpoint / name).is_file() for name in VOCABULARIES):
            raise BadConfiguration(f"{checkpoint} has no tokenizer: one of {', '.join(VOCABULARIES)} is needed")
        tokenizer = self.read_tokenizer(checkpoint)
        if len(tokenizer) > config.vocab_size:
            raise BadConfiguration(
                f"{checkpoint}: the tokenizer has {len(tokenizer):,} tokens, the model knows {config.vocab_size:,}"
            )
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer.save_pretrained(scratch)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                if not (saved := Path(scratch) / name).exists():
                    raise BadConfiguration(
                        f"{checkpoint} gives no {name}; only tokenizers that `tokenizers` runs serve"
                    )
                (folder / name).write_bytes(saved.read_bytes())
        if tokenizer.padding_side != "right":
            raise BadConfiguration(f"{checkpoint} pads on the left; row lengths as a mask need padding on the right")
        return {
            "max_length": min(tokenizer.model_max_length, config.max_position_embeddings),
            "pad_token_id": tokenizer.pad_token_id or 0,
        }

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random tokens in every size and length, unpadded and with rows of random lengths."""
        generator = torch.Generator().manual_seed(0)
        batches = {}
        for size in BATCH_SIZES:
            for length in (length for length in LENGTHS if length <= config.max_position_embeddings):
                ids = torch.randint(config.vocab_size, (size, length), generator=generator)
                lengths = torch.randint(1, length + 1, (size,), generator=generator)
                for name, rows in (("", torch.full((size,), length)), (", padded", lengths)):
                    mask = (torch.arange(length) < rows[:, None]).long()
                    batches[f"{size} x {length}{name}"] = {
                        "input_ids": ids,
                        "attention_mask": mask,
                        "token_type_ids": torch.zeros_like(ids),
                    }
        return batches
