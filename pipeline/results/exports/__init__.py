"""Exports of a run's masks in the formats of other tools, streamed from its tables."""
