"""The command line: `aya-train` and what its arguments mean."""
