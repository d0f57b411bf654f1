"""Data sets of one's own: tables and prompt templates, in a sandbox."""
