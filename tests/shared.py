"""Objects that test modules share, apart from fixtures."""

from __future__ import annotations

from pipeline.data.storage import Storage

# One storage for all tests: making an S3 client takes a quarter of a second, and the session has one server.
STORAGE = Storage()
