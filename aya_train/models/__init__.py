"""The network in Flax, with T5X's parameter names."""
