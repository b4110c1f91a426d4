"""A finished main job on one machine: drawn street scenes, an embedded S3 and a local Ray cluster."""
