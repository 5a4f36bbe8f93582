"""Metrics on the served graph: intervals, slices, baselines, comparison and the quality gate."""
