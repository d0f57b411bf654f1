"""Metrics of the tasks, and the search for evaluation texts in training data."""
