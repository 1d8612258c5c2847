"""How alike two texts are, or how well one answers the other, by a model that reads both at once
(cross-encoder; Nogueira and Cho, 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from tfbatch.bundle import Bundle
from tfbatch.bundles.json_files import read_object
from tfbatch.bundles.pooling import OWN_FILE, refuse_prompt
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.predictions.scores import sigmoid
from tfbatch.results import stacked
from tfbatch.tasks._text import TextTask

RAW = {
    "torch.nn.modules.linear.Identity": True, "torch.nn.Identity": True,
    "torch.nn.modules.activation.Sigmoid": False, "torch.nn.Sigmoid": False, None: False,
}  # fmt: skip


class SentenceSimilarity(TextTask):
    """The model's one logit, through a sigmoid, or as it is where the checkpoint says so, as
    sentence-transformers' CrossEncoder gives it."""

    options: ClassVar[tuple[str, ...]] = ("text_pair_column", "max_length")

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        super().__init__(bundle, config, column)
        if config.text_pair_column is None:
            raise UsageError("sentence-similarity reads two columns: name the second with --text-pair-column")
        if len(bundle.manifest.labels) != 1:
            raise BadConfiguration(
                f"bundle {bundle.path} has the labels {', '.join(bundle.manifest.labels)}; a similarity is one number"
            )
        raw = bundle.manifest.settings.get("raw")
        self._is_raw = is_raw(bundle.path, bundle.read_json("config.json")) if raw is None else bool(raw)

    @staticmethod
    def columns(_: RunConfig, __: Bundle | None = None) -> pa.Schema:
        """`similarity`, from 0 to 1 unless it is the raw logit."""
        return pa.schema([pa.field("similarity", pa.float32())])

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        logits = stacked(results, 1)[:, 0]
        return [pa.array(logits if self._is_raw else sigmoid(logits), pa.float32())]


def is_raw(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a model's logit stays as it is, by CrossEncoder's own file, else by `config.json`, where releases before
    had it in one of two ways.

    Raises:
        BadConfiguration: something else is made of it, or words are put before texts.
    """
    refuse_prompt(folder)
    own = read_object(folder / OWN_FILE) if (folder / OWN_FILE).is_file() else {}
    told = settings.get("sentence_transformers") or {}
    before = told.get("activation_fn") or settings.get("sbert_ce_default_activation_function")
    if (name := own.get("activation_fn") or before) not in RAW:
        raise BadConfiguration(
            f"{folder} has {name} made of the logit; what is known is {', '.join(filter(None, RAW))}"
        )
    return RAW[name]


TASK = SentenceSimilarity
