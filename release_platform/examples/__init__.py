"""Complete model projects that run from a fresh clone: one folder each, with its defs.yaml."""
