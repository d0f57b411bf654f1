"""Data of preferences: which of two answers to a prompt was preferred."""
