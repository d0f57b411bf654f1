"""Hugging Face folders: names and shapes of their arrays, configuration and tokenizer."""
