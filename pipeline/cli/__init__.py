"""The command `moerank`, one verb per job."""
