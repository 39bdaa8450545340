"""Pretraining and evaluation with symplectic_jepa: one training loop, settings in YAML recipes."""
