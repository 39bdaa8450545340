"""A recipe's model and optimizer."""
