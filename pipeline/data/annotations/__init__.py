"""Annotations of labeling tools, painted into label files for training."""
