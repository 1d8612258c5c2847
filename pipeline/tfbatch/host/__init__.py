"""The machine, and this process on it: what there is, what is used of it, how it is asked to stop."""
