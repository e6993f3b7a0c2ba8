"""A complete example model."""
