"""Alembic migrations of the release store."""
