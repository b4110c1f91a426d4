"""Template environment of all pages: automatic escaping, and filters that format numbers."""

from __future__ import annotations

import jinja2

__all__ = ["hex_colour", "page_environment"]


def page_environment(package: str | None = None) -> jinja2.Environment:
    """Return an environment that renders templates of `pipeline.results`, and of another package if one is given.

    A page loads nothing from elsewhere, and runs no script.

    Args:
        package: Name of the second package whose templates can be rendered; None for none.
    """
    packages = ["pipeline.results", *([package] if package else [])]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in packages]),
        autoescape=True,  # names, URIs and messages come from untrusted files
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "count": _count, "between": _between}
    environment.filters |= {"words": _words, "signed": _signed, "signed_between": _signed_between}
    return environment


def hex_colour(colour: tuple[int, int, int]) -> str:
    """Return an RGB color with values from 0 to 255 as `#rrggbb`."""
    return "#" + bytes(colour).hex()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def _signed(value: float | None) -> str:
    # The minus sign has the width of the plus sign; the hyphen does not.
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def _signed_between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice")
