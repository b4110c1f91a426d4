"""Two runs over the same images: do they differ, where, and by how much."""
