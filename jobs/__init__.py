"""Entry scripts: parse, call, print, exit code."""
