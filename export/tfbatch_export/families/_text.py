"""What text encoders have in common: token ids in, right-padded, and what a head makes of their states out."""

from pathlib import Path
from typing import Any, Protocol

import onnx_ir
import torch
from tfbatch.bundles.json_files import token_count
from tfbatch.errors import BadConfiguration
from transformers import PreTrainedModel

from tfbatch_export.checkpoints.tokenizer import read_tokenizer, write_tokenizer
from tfbatch_export.families import Axes, Tensors
from tfbatch_export.heads import Head, head_names, load_head
from tfbatch_export.rewrites.masks import mask_by_row_lengths
from tfbatch_export.trace import UNMASKED

BATCH_SIZES = (1, 2, 7)
LENGTHS = (2, 17, 128, 512)
TRACED = 16  # tokens
LONG = 2048  # tokens of one row more, where a model takes over 512
TYPES = "token_type_ids"
AXES = {0: "batch", 1: "sequence"}


class TextModel(Protocol):
    """The part of a text model that is the same for all of its heads.

    `inputs` are its arguments by the Hub's names, the mask among them; `attention` the implementation
    that is traced; `traces_mask` whether that is given the mask.
    """

    inputs: tuple[str, ...]
    attention: str | None
    traces_mask: bool

    def layers(self, config: Any) -> int:
        """How many attention layers it has."""

    def expected(self, config: Any) -> dict[str, int]:
        """See `Family`."""

    def longest(self, config: Any) -> int:
        """The most tokens that it has positions for, special ones included."""

    def rewire(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model as it is traced: itself, or a copy of it whose attention is one operator."""

    def complete(self, graph: onnx_ir.Model) -> None:
        """What is left to do once a graph is fused: the mask, where it was traced without."""


class AbsolutePositions:
    """Position embeddings that are learned, and attention that is traced without its mask."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask", TYPES)
    attention: str | None = UNMASKED
    traces_mask = False

    def longest(self, config: Any) -> int:
        return int(config.max_position_embeddings)

    def rewire(self, model: PreTrainedModel) -> PreTrainedModel:
        return model

    def complete(self, graph: onnx_ir.Model) -> None:
        mask_by_row_lengths(graph)


class Traced(torch.nn.Module):
    """A text model and its head as a function of the graph's inputs; the mask is for the head alone,
    unless the model traces it."""

    def __init__(self, family: "TextFamily", model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.family = family

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """(B, L) int64 three times and (B,) int64 to the head's outputs."""
        given = {"input_ids": input_ids, TYPES: token_type_ids}
        if self.family.model.traces_mask:
            given["attention_mask"] = attention_mask
        more = {"attention_mask": attention_mask, "positions": positions}
        present, rest = ({name: value for name, value in part.items() if value is not None} for part in (given, more))
        return self.family.head.trace(self.model, present, rest)


class TextFamily:
    """A text model with one head."""

    def __init__(self, model: TextModel, head: Head) -> None:
        self.model, self.head = model, head
        self.inputs = (*model.inputs, *head.more_inputs)
        self.output, self.further_outputs = head.output, head.further_outputs
        self.hub_class, self.unused = head.hub_class, head.unused
        self.attention, self.is_inferred = model.attention, head.is_inferred
        self.layers, self.expected, self.complete = model.layers, model.expected, model.complete
        self.labels = head.labels

    def wrap(self, model: PreTrainedModel) -> torch.nn.Module:
        return Traced(self, self.model.rewire(model))

    def trace_inputs(self, config: Any) -> tuple[Tensors, Axes]:
        ids = torch.randint(config.vocab_size, (2, min(TRACED, self.model.longest(config))))
        samples = self._with_the_rest(ids, torch.ones_like(ids), config)
        if not (self.head.reads_mask or self.model.traces_mask):
            del samples["attention_mask"]
        return samples, {name: self.head.more_inputs.get(name, AXES) for name in samples}

    def _with_the_rest(self, ids: torch.Tensor, mask: torch.Tensor, config: Any) -> Tensors:
        """All of the graph's inputs, in their order, for ids and a mask (B, L)."""
        types = ids % max(1, known_types(config))  # all that the model knows
        known = {"input_ids": ids, "attention_mask": mask, TYPES: types}
        known |= self.head.examples(ids, mask, config)
        return {name: known[name] for name in self.inputs}

    def write_preprocessor(self, checkpoint: Path, config: Any, folder: Path) -> dict[str, Any]:
        """The tokenizer, and how long texts may be."""
        tokenizer = read_tokenizer(checkpoint)
        self._refuse_what_is_not_traced(checkpoint, tokenizer, config)
        settings = write_tokenizer(checkpoint, tokenizer, config.vocab_size, folder)
        found = self.head.settings(checkpoint, config)
        named = found.get("max_length")  # which takes the place of the tokenizer's, as sentence-transformers has it
        lengths = (settings["max_length"] if named is None else named, self.model.longest(config))
        least = min(length for length in lengths if length is not None)
        return settings | found | {"max_length": token_count(least, f"{checkpoint}: the most tokens of an input")}

    def _refuse_what_is_not_traced(self, checkpoint: Path, tokenizer: Any, config: Any) -> None:
        """Refuse types of tokens that the graph has no input for, and positions that transformers leaves out."""
        if TYPES not in self.inputs and TYPES in tokenizer.model_input_names and known_types(config) > 1:
            raise BadConfiguration(
                f"{checkpoint} knows {known_types(config)} types of tokens (type_vocab_size) and its tokenizer gives "
                f"them; models of type {config.model_type} are exported without"
            )
        kind = getattr(config, "position_embedding_type", None)
        if isinstance(self.model, AbsolutePositions) and kind not in (None, "absolute"):
            raise BadConfiguration(
                f"{checkpoint} has positions of another kind, {kind} (position_embedding_type); what can be exported "
                f"is absolute"
            )

    def reference(self, model: PreTrainedModel, inputs: Tensors) -> torch.Tensor:
        given = {name: inputs[name] for name in self.model.inputs}
        return self.head.reference(model, given, inputs)

    def parity_batches(self, config: Any) -> dict[str, Tensors]:
        """Random tokens, of every type, in every size and length, unpadded and with rows of random lengths."""
        generator = torch.Generator().manual_seed(0)
        batches = {}
        for size in BATCH_SIZES:
            for length in sorted({min(length, self.model.longest(config)) for length in LENGTHS}):
                ids = torch.randint(config.vocab_size, (size, length), generator=generator)
                lengths = torch.randint(1, length + 1, (size,), generator=generator)
                for name, rows in (("", torch.full((size,), length)), (", padded", lengths)):
                    mask = (torch.arange(length) < rows[:, None]).long()
                    batches[f"{size} x {length}{name}"] = self._with_the_rest(ids, mask, config)
        if (longest := min(self.model.longest(config), LONG)) > max(LENGTHS):
            ids = torch.randint(config.vocab_size, (1, longest), generator=generator)
            batches[f"1 x {longest}"] = self._with_the_rest(ids, torch.ones_like(ids), config)
        return batches


def known_types(config: Any) -> int:
    """How many types of tokens a model tells apart; it may have no word for it."""
    return int(getattr(config, "type_vocab_size", 0))


def text_tasks(model: TextModel) -> dict[str, TextFamily]:
    """A text model with each of the heads there are."""
    return {task: TextFamily(model, load_head(task)) for task in head_names()}
