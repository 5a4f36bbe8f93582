"""Features: schema, point-in-time build, encoding, batches and online tables (no torch)."""
