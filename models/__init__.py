"""Models: gates, experts, towers, the ranker, sharding and export."""
