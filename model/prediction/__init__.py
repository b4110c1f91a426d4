"""Prediction: geometry, windows, views, upsampling and counts over pixels."""
