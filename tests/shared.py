"""What test modules share beside fixtures."""

from __future__ import annotations

from pipeline.data.storage import Storage

# A client of S3 takes a quarter of a second to make, and the session has one server.
STORAGE = Storage()
