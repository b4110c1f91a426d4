"""Published data sets, read as they were published: one module a layout, and one table of them."""
