"""aya-train: fine-tunes mT5 on the Aya instruction data with JAX, and exports to Hugging Face."""

__version__ = '0.1.0'
