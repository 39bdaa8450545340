"""Images: augmentation, data sets, packed files."""
