"""Seeded live traffic, and the rules that the judge is compared with."""
