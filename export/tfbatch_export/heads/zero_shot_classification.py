"""Logits (B, classes) of entailment, for a text and a label put into a sentence."""

from pathlib import Path
from typing import Any

from tfbatch.tasks.zero_shot_classification import meaning_of_logits

from tfbatch_export.heads import LogitsHead


class Entailment(LogitsHead):
    """Asked for by name: a checkpoint of its class may be for anything."""

    hub_class: str | None = "AutoModelForSequenceClassification"
    is_inferred = False

    def settings(self, checkpoint: Path, config: Any) -> dict[str, Any]:
        meaning_of_logits(str(checkpoint), self.labels(config))  # else refused here, not at run
        return {}


HEAD = Entailment()
