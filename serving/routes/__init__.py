"""The doors: each parses, calls once, and translates."""
