"""Arrays of checkpoints that are read when they are needed, and the files that hold them."""
