"""Bulk semantic segmentation: a plan of shards, one part file per shard, one commit."""
