"""The model rebuilt as it is served: split first layers, folded norms, and experts by the rows that take them."""
