"""Dagster's words around the platform: assets, checks, jobs and sensors, one file per stage, in data order."""
