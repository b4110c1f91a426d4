"""Cost of a run of very many images for its driver and its storage: `python -m benchmarks.scale --help`."""
