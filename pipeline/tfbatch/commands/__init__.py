"""What people type: options, and the commands that look before a run."""
