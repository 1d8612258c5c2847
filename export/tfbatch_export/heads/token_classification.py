"""Logits (B, L, labels) over the labels of each token."""

from tfbatch_export.heads import LogitsHead

HEAD = LogitsHead()
