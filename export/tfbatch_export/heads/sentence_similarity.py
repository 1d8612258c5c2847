"""One logit (B, 1) for two texts that are read together."""

from pathlib import Path
from typing import Any

from tfbatch.errors import BadConfiguration
from tfbatch.tasks.sentence_similarity import is_raw

from tfbatch_export.heads import LogitsHead


class CrossEncoder(LogitsHead):
    """Asked for by name: a checkpoint of its class may be for anything."""

    hub_class: str | None = "AutoModelForSequenceClassification"
    is_inferred = False

    def settings(self, checkpoint: Path, config: Any) -> dict[str, Any]:
        if config.num_labels != 1:
            raise BadConfiguration(f"{checkpoint} gives {config.num_labels} logits; a similarity is one number")
        return {"raw": is_raw(checkpoint, config.to_dict())}


HEAD = CrossEncoder()
