"""Changes to fused graphs: the same numbers with less work."""
