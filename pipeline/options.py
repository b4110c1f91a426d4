"""Annotation of options for --help: placeholder of the value, and the meaning of a default of None."""

from __future__ import annotations

from typing import Any

import tyro

__all__ = ["option"]


def option(metavar: str, unset: str | None = None) -> Any:
    """Return an annotation for a field that is a command-line option.

    Args:
        metavar: Placeholder of the value in --help, such as URI.
        unset: Meaning of the default None, in words; None: the default is printed as it is.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=None if unset is None else f"(default: {unset})")
