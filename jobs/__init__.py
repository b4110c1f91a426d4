"""Entry scripts: each parses its options, calls the pipeline, prints the result and returns an exit code."""
