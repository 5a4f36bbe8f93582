"""Online tables and the encoder of requests."""
