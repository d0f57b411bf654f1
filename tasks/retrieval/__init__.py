"""Texts that belong together, for retrieval and for vectors of sentences: pairs, layouts, tasks."""
