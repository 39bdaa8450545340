"""Measurements on a trained encoder and predictor."""
