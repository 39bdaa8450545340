"""What is measured of a trained encoder and predictor."""
