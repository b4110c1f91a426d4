"""Tests of storage, listings, images, labels and data sets."""
