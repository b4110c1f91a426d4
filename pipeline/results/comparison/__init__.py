"""Comparison of two runs over the same images: whether they differ, where, and by how much."""
