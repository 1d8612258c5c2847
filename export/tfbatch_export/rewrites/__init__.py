"""Fused graphs: read, counted, given their masks, and rewritten to less work."""
