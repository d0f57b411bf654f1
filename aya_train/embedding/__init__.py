"""Vectors of texts in use: made, kept, searched, mined for hard negatives, and measured."""
