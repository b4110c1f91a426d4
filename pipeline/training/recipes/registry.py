"""Registry of all recipes by name."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import ConfigError
from pipeline.training.recipes.own import SMALL_RECIPES
from pipeline.training.recipes.paper import PAPER_RECIPES
from pipeline.training.recipes.schema import Recipe

__all__ = ["RECIPES", "describe_recipes", "recipe"]

_MAKERS = (*PAPER_RECIPES, *SMALL_RECIPES)
RECIPES: Mapping[str, Recipe] = {maker.__name__: maker() for maker in _MAKERS}


def describe_recipes() -> str:
    """Return one line per recipe, its name and the first line of its docstring, for the list in --help."""
    width = max(map(len, RECIPES))
    return "\n".join(f"  {maker.__name__:<{width}}  {(maker.__doc__ or '').splitlines()[0]}" for maker in _MAKERS)


def recipe(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises:
        ConfigError: If no recipe has this name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
