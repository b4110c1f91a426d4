"""Samples of training: data sets, crops, and the randomness that chooses them."""
