"""Repeatable measurements; none of them is a test."""
