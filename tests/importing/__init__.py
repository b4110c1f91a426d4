"""Tests of importing networks of other origin, and of predicting with them."""
