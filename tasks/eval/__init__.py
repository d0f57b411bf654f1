"""Evaluation benchmarks as tasks, and the search for evaluation texts in training data."""
