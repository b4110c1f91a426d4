"""Tests of compiled code where it cannot be cached."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from model.kernels import compilation
from model.kernels.compilation import compiled


def double(x: int) -> int:
    return 2 * x


def test_without_a_place_to_keep_compiled_code() -> None:
    scope: dict[str, Any] = {}
    exec("def triple(x):\n    return 3 * x\n", scope)
    assert compiled(scope["triple"])(3) == 9


def test_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(**_: object) -> Any:
        def call(function: Any) -> Any:
            def first_not_kept(*arguments: object) -> object:
                calls.append(arguments)
                if len(calls) == 1:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return function(*arguments)

            return first_not_kept

        return call

    monkeypatch.setattr(compilation, "njit", full)
    assert compiled(double)(4) == 8
    assert calls == [(4,), (4,)]
