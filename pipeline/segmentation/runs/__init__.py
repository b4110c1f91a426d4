"""Runs of segmentation: plan, claim, shards, parts and commit."""
