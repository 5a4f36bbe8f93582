"""Layers that know nothing of experts, gates or tasks."""
