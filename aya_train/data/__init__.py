"""From SeqIO tasks to batches: tokenised once, then read by index, mixed, packed and shuffled."""
