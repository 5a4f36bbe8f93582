"""Importers: public data sets, as their publishers ship them, to the raw Parquet that features are built from."""
