"""Bulk dense prediction: a plan of shards, one part per shard, one commit."""
