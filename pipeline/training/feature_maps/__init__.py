"""Feature maps and score maps of whole images, computed once and cached."""
