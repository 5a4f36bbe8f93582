"""Export and publication of a run."""
