"""Reading: raw Parquet, the query engine, expressions, time zones and file systems."""
