"""How rows become batches: their distinct cells, which go together, how many fit the memory there is."""
