"""The server process: fronts, pools, admission, security and health."""
