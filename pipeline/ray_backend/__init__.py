"""The only package that imports Ray: clusters, actors and workers."""
