"""Fast kernels and prepared layers; each computes what a plain layer does."""
