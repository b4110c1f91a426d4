"""Tests of import rules: import-linter's contracts between layers, and Ray in its adapters alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imported(path: Path) -> set[str]:
    """Return the top-level names of the packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_contracts_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_model_needs_no_tables_and_no_storage() -> None:
    allowed = {"torch", "torchvision", "numpy", "numba", "llvmlite", "pydantic", "safetensors", "model"} | set(
        sys.stdlib_module_names
    )
    assert {name for path in (ROOT / "model").rglob("*.py") for name in imported(path)} <= allowed
