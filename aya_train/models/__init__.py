"""mT5's network in Flax Linen, and the encoder-decoder model around it."""
