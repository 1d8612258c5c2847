"""What a job is to read, run and write where nobody has said so: columns, bundle, output."""
