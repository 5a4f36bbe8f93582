"""What the training recipe in `pipeline.training.train` is made of."""
