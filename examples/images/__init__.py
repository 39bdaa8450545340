"""Data sets, augmentation and packed image files."""
