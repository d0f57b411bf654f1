"""What is trained: the protocol that the trainer knows, and sequence to sequence."""
