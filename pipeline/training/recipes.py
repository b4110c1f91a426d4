"""Recipes by name."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import ConfigError
from pipeline.training.paper_recipes import PAPER_RECIPES
from pipeline.training.recipe_schema import Recipe
from pipeline.training.small_recipes import SMALL_RECIPES

__all__ = ["RECIPES", "describe_recipes", "recipe"]

_MAKERS = (*PAPER_RECIPES, *SMALL_RECIPES)
RECIPES: Mapping[str, Recipe] = {maker.__name__: maker() for maker in _MAKERS}


def describe_recipes() -> str:
    """A line for each recipe."""
    width = max(map(len, RECIPES))
    return "\n".join(f"  {maker.__name__:<{width}}  {(maker.__doc__ or '').splitlines()[0]}" for maker in _MAKERS)


def recipe(name: str) -> Recipe:
    """Looks a recipe up.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
