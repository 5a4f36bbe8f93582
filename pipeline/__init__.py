"""The pipeline: config, training, evaluation, flows and the command line."""
