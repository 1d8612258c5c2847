"""Texts to model inputs: tokenized side by side, cut, or read in windows."""
