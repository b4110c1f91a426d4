"""Runs of training: submission, lease, checkpoints and phases."""
