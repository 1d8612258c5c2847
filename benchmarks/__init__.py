"""tfbatch beside its peers: the same rows, weights and threads, a fresh process each."""
