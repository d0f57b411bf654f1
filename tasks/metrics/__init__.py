"""Metric functions of the tasks: (targets, predictions) -> {name: number}."""
