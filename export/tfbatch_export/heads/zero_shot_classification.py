"""Logits (B, classes) of entailment, for a text and a label put into a sentence."""

from tfbatch_export.heads import LogitsHead


class Entailment(LogitsHead):
    """Asked for by name: a checkpoint of its class may be for anything."""

    hub_class: str | None = "AutoModelForSequenceClassification"
    is_inferred = False


HEAD = Entailment()
