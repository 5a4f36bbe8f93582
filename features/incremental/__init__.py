"""Building by days: what is kept of earlier builds, and what a new day computes."""
