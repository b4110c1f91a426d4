"""Tests that break processes, storage and inputs, and check the results."""
