"""The export stage: a Hugging Face checkpoint becomes a bundle that has been proved equal to it."""
