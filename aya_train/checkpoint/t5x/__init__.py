"""Checkpoints of T5X, native and through Orbax: read and written."""
