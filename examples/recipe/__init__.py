"""Recipes: sections, schema, files."""
