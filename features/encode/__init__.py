"""From raw values to model inputs: vocabularies, fitted encoders and the encoded splits."""
