"""Judges a model before there is a version of it, or a version again: what `release gate` does."""
