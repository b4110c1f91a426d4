"""Scores that need masks and labels again: boundary IoU and calibration, beside all that counts of pixels give."""
