"""A search over a recipe's settings, and whether what it found is better over seeds."""
