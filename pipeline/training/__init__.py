"""What the training recipe in `pipeline.train` is made of."""
