"""What becomes of a published model: its days as they were served, and how far new rows are from its training."""
