"""Tests of painting annotations into label files."""
