"""Models held against each other on the same rows: paired tests, slices, and what is written of them."""
