"""The mixtures of Aya-101, its ablations, mT0 and mT0x, with their weights."""
