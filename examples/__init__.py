"""Pretraining and evaluation with symplectic_jepa: one loop, recipes as data."""
