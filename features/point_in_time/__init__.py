"""Features as they were at each event's moment: labels, negatives, aggregates and histories on one timeline."""
