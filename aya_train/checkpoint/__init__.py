"""Checkpoints: those of a run, and the ways between native, T5X and Hugging Face."""
