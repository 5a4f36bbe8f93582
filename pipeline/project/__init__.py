"""A project's file and its reference."""
