"""Recipes, one module a method: a typed function from profile to the whole run."""
