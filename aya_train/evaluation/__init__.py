"""Evaluation of checkpoints: loss on held-out batches, and metrics of answers and of options."""
