"""Recipes: settings, their checks, and the files."""
