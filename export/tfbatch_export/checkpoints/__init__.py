"""What lies beside a checkpoint's model: its files, looked at, and what it does to texts and pictures."""
