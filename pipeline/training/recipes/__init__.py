"""Recipes: their schema, those of the paper, our own, and all by name."""
