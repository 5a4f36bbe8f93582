"""Models: gates, experts, towers, the ranker, sharding and export."""

import os

# OpenMP reads this when torch is first imported. Its default, to spin while waiting, takes cores from the server and
# from other ranks.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
