"""What a job reads: files found by their names, looked at before pyarrow reads them, and the cells of a column."""
