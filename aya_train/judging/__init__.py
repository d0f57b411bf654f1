"""Judging by a model behind an OpenAI-compatible endpoint; imports neither JAX nor TensorFlow."""
