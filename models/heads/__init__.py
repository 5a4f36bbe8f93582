"""Task towers and what follows them: chains of probabilities and calibration curves."""
