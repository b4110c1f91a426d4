"""Full scores of a run from its masks and labels: boundary IoU and calibration, beside all scores of pixel counts."""
