"""What is said of a job, while it runs and when it has: progress, counts, the summary, the contact sheet."""
