"""Building the model, its penalties and its optimizer from a recipe."""
