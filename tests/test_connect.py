"""A cluster that is not there is a sentence and exit code 3, not a stack trace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_no_cluster_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Nobody listens: a port that is bound only.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = [
            "--images",
            str(tmp_path),
            "--checkpoint",
            "network.safetensors",
            "--output",
            str(tmp_path / "out"),
        ]
        done = subprocess.run(
            [sys.executable, "jobs/segment_bucket.py", *arguments],
            cwd=ROOT,
            env=os.environ
            | {"RAY_ADDRESS": address, "RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_NUM_REDIS_GET_RETRIES": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no Ray cluster answers at") and address in last
    assert "Traceback" not in done.stderr
