"""Model Release Platform: from raw data to a verified Production model, with lineage all the way."""

__version__ = "0.1.0"
