"""Pipeline: configuration, training, evaluation, reports, flows and the command (Prefect lives only here)."""
