"""The log of served requests: its form, its rows as events, and what was served as the features of training rows."""
