"""Scores, quotients, intervals and the bootstrap, on plain arrays."""
