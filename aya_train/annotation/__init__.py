"""People judge answers and rate data: batches for them, and what they send back."""
