"""Logits (B, labels) over the labels of a text."""

from tfbatch_export.heads import LogitsHead

HEAD = LogitsHead()
