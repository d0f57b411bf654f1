"""Bytes that nobody would write, for every parser: `python -m tests.faults.fuzz --help`."""
