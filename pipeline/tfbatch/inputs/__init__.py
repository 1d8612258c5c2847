"""What a job reads: files found by their names, and looked at before pyarrow reads them."""
