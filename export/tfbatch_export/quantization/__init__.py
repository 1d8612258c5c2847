"""Graphs of 8-bit products: what their inputs are like, and how their weights are rounded."""
