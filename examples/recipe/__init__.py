"""Recipes: the schema, its checks, the files."""
