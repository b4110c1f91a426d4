"""Tests that what version 0.1.0 wrote is read, resumed and refused as before."""
