"""Tests of the network and of prediction."""
