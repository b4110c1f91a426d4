"""Published data sets in their original layouts: one module per layout, and one registry."""
