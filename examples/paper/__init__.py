"""The study: the paper's tables."""
