"""Experts, the levels they stand in, and their sparse training."""
