"""Demo of the whole system on one machine: drawn street scenes, an embedded S3 server and a local Ray cluster."""
