"""The steps of a run, the Prefect flow and its schedule."""
