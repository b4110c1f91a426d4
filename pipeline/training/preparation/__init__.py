"""Preparation of a run: data are looked at, numbers derived, lists of images frozen."""
