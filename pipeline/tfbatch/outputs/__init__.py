"""What a job writes: parts that are complete or absent, in a folder, an object store, or joined to one file."""
