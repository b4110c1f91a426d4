"""What a run of very many images costs its driver and its storage: `python -m benchmarks.scale --help`."""
