"""One runnable file a promise: ``python -m benchmarks.NAME [--json]``; exit 0 if all bounds hold, 1 if not."""
