"""Evaluation in one pass over rows that do not fit in memory: states of parts of the rows, merged into one."""
