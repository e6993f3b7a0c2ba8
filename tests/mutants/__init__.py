"""Negative controls: planted defects, each of which a named test must catch. Run them with `make mutants`."""
