"""Packages between a bucket and the network: data, results, training, segmentation."""
