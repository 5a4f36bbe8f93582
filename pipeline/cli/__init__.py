"""The command `moerank`, one verb a job."""
