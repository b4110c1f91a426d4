"""Runner of the tests on several hosts, in network and process namespaces of their own.

make hosts
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent.parent
# All hosts, cables and processes made in the namespaces end with them, even after SIGKILL.
_APART = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# The shell stays as the namespace's first process, and adopts the orphans that a killed raylet leaves.
_INSIDE = 'mkdir -p /run/netns && mount -t tmpfs hosts /run/netns && ip link set lo up && "$@"; exit $?'


def main(arguments: list[str]) -> NoReturn:
    """Replace this process by pytest in namespaces of its own; exit with code 2 if that is impossible."""
    if missing := _missing():
        print(f"error: make hosts {missing}", file=sys.stderr)
        sys.exit(2)
    os.chdir(_ROOT)
    pytest = [sys.executable, "-m", "pytest", "-s", "tests/hosts", *arguments]
    os.execvp(_APART[0], [*_APART, "sh", "-c", _INSIDE, "hosts", *pytest])


def _missing() -> str | None:
    """Return what the tests need and this machine lacks, as the end of a message; None: nothing is missing."""
    if sys.platform != "linux":
        return "needs Linux: its hosts are network namespaces"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces: sudo make hosts"
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            return f"needs the program `{program}`: apt-get install -y {package}"
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
