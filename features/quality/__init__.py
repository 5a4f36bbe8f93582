"""What a build says of its data: distributions, drift, leaks and counts."""
